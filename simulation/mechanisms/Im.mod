TITLE Muscarinic potassium current

COMMENT
Rates: Adams, Brown & Constanti 1982, J Physiol 330:537.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX Im
    USEION k READ ek WRITE ik
    RANGE gImbar, ik
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

CONSTANT {
    : Q10 of 2.3 from 21 to 34 degC
    qt = 2.952882641412121
}

PARAMETER {
    gImbar = 1e-5 (S/cm2)
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
    ik = gImbar * m * (v - ek)
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
    alpha = 0.0033 * exp(0.1 * (v + 35))
    beta = 0.0033 * exp(-0.1 * (v + 35))
    m_inf = alpha / (alpha + beta)
    m_tau = 1 / ((alpha + beta) * qt)
}
UNITSON
