"""The paper's results as data, and experiments to compare with them."""
