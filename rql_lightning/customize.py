"""``python -m rql_lightning.customize``: customise a policy in one command.

The function of the same name is what ``rql_lightning.customize`` stands for, also after an import of this module: a
module may replace itself in ``sys.modules``, and an import then binds what it finds there.
"""

import sys

if __name__ == "__main__":
    from rql_lightning.customizing.command import main

    main()
else:
    from rql_lightning.customizing import customize

    sys.modules[__name__] = customize  # type: ignore[assignment]
