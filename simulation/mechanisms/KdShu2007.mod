TITLE Slowly inactivating potassium current (D type)

COMMENT
Rates: Shu, Yu, Yang & McCormick 2007, PNAS 104:11453. No temperature correction; its own reversal potential.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX KdShu2007
    USEION k WRITE ik
    RANGE gkbar, ek, ik
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

PARAMETER {
    gkbar = 0.1 (S/cm2)
    ek = -100 (mV)
    m_tau = 0.6 (ms)
    h_tau = 1500 (ms)
}

ASSIGNED {
    v (mV)
    ik (mA/cm2)
    m_inf
    h_inf
}

STATE {
    m
    h
}

BREAKPOINT {
    SOLVE states METHOD cnexp
    ik = gkbar * m * h * (v - ek)
}

DERIVATIVE states {
    rates(v)
    m' = (m_inf - m) / m_tau
    h' = (h_inf - h) / h_tau
}

INITIAL {
    rates(v)
    m = m_inf
    h = h_inf
}

UNITSOFF
PROCEDURE rates(v) {
    m_inf = 1 / (1 + exp(-(v + 43) / 8))
    h_inf = 1 / (1 + exp((v + 67) / 7.3))
}
UNITSON
