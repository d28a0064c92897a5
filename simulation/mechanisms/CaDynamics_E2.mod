TITLE Calcium in a shell under the membrane

COMMENT
A share gamma of the calcium that enters stays free in a shell of the given depth and decays to its
resting concentration: Destexhe, Mainen & Sejnowski 1994, Neural Comput 6:14.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX CaDynamics_E2
    USEION ca READ ica WRITE cai
    RANGE gamma, decay, depth, minCai
}

UNITS {
    (mA) = (milliamp)
    (molar) = (1/liter)
    (mM) = (millimolar)
    (um) = (micron)
    FARADAY = (faraday) (coulombs)
}

PARAMETER {
    gamma = 0.05
    decay = 80 (ms)
    depth = 0.1 (um)
    minCai = 1e-4 (mM)
}

ASSIGNED {
    ica (mA/cm2)
}

STATE {
    cai (mM)
}

BREAKPOINT {
    SOLVE states METHOD cnexp
}

DERIVATIVE states {
    : 1e4 makes mM/ms of mA/cm2 / (um coulomb/mol)
    cai' = -(1e4) * ica * gamma / (2 * FARADAY * depth) - (cai - minCai) / decay
}
