TITLE Fast potassium current (Kv3.1)

COMMENT
Rates: Rettig et al. 1992, EMBO J 11:2473. No temperature correction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX SKv3_1
    USEION k READ ek WRITE ik
    RANGE gSKv3_1bar, ik
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

PARAMETER {
    gSKv3_1bar = 1e-5 (S/cm2)
}

ASSIGNED {
    v (mV)
    ek (mV)
    ik (mA/cm2)
    m_inf
    m_tau (ms)
}

STATE {
    m
}

BREAKPOINT {
    SOLVE states METHOD cnexp
    ik = gSKv3_1bar * m * (v - ek)
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
    m_inf = 1 / (1 + exp(-(v - 18.7) / 9.7))
    m_tau = 4 / (1 + exp(-(v + 46.56) / 44.14))
}
UNITSON
