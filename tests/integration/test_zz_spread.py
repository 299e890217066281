import sys; sys.path.insert(0,'/work/main/tests/integration')
import pytest, numpy as np
from test_oracle import *
from rql_lightning.tabular import soft_value_iteration
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ts", range(3))
def test_spread(fit, task, seed, ts):
    mdp=Mdp(seed)
    f=lambda a,d: fit(a,d,seed=ts)
    l=learn(f, ResidualSoftQLearning(function_prior(mdp), OMEGA_PRIME, ALPHA_HAT, **LEARNER), task(mdp), "add_on")
    e=mdp.residual(OMEGA_PRIME, ALPHA_HAT)
    q,_,_=soft_value_iteration(mdp.add_on, mdp.transition, GAMMA, ALPHA_HAT, mdp.terminal)
    g=np.exp((q+OMEGA_PRIME*np.log(mdp.prior))/ALPHA_HAT); g/=g.sum(-1,keepdims=True)
    print('\n',seed,ts,'learnt',round(distance(l,e),4),'wrong',[round(distance(p,e),3) for p in (mdp.prior,mdp.soft(mdp.add_on,ALPHA_HAT),g,mdp.residual(OMEGA_PRIME,ALPHA),mdp.residual(ALPHA,ALPHA_HAT),mdp.residual(OMEGA_PRIME,ALPHA_HAT,terminal=None),mdp.residual(OMEGA_PRIME,ALPHA_HAT,GAMMA*(1-1/TIME_LIMIT)))])
