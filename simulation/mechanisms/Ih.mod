TITLE Hyperpolarisation-activated cation current

COMMENT
Rates: Kole, Hallermann & Stuart 2006, J Neurosci 26:1677. No temperature correction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX Ih
    NONSPECIFIC_CURRENT ihcn
    RANGE gIhbar, ihcn
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

PARAMETER {
    gIhbar = 1e-5 (S/cm2)
    ehcn = -45 (mV)
}

ASSIGNED {
    v (mV)
    ihcn (mA/cm2)
    m_inf
    m_tau (ms)
}

STATE {
    m
}

BREAKPOINT {
    SOLVE states METHOD cnexp
    ihcn = gIhbar * m * (v - ehcn)
}

DERIVATIVE states {
    rates(v)
    m' = (m_inf - m) / m_tau
}

INITIAL {
    rates(v)
    m = m_inf
}

UNITSOFF
PROCEDURE rates(v) {
    LOCAL alpha, beta
    alpha = 0.076517 * ratio((v + 154.9) / 11.9)
    beta = 0.193 * exp(v / 33.1)
    m_tau = 1 / (alpha + beta)
    m_inf = alpha * m_tau
}

FUNCTION ratio(x) {
    : x / (exp(x) - 1), whose limit at zero is 1
    if (fabs(x) < 1e-6) {
        ratio = 1 - x / 2
    } else {
        ratio = x / (exp(x) - 1)
    }
}
UNITSON
