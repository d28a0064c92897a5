TITLE Fast sodium current of the soma and the dendrites

COMMENT
Rates: Colbert & Pan 2002, Nat Neurosci 5:533, shifted by 6 mV against those of the axon.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX NaTs2_t
    USEION na READ ena WRITE ina
    RANGE gNaTs2_tbar, ina
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
    gNaTs2_tbar = 1e-5 (S/cm2)
}

ASSIGNED {
    v (mV)
    ena (mV)
    ina (mA/cm2)
    m_inf
    m_tau (ms)
    h_inf
    h_tau (ms)
}

STATE {
    m
    h
}

BREAKPOINT {
    SOLVE states METHOD cnexp
    ina = gNaTs2_tbar * m * m * m * h * (v - ena)
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
    LOCAL alpha, beta
    alpha = 1.092 * ratio(-(v + 32) / 6)
    beta = 0.744 * ratio((v + 32) / 6)
    m_inf = alpha / (alpha + beta)
    m_tau = 1 / ((alpha + beta) * qt)
    alpha = 0.09 * ratio((v + 60) / 6)
    beta = 0.09 * ratio(-(v + 60) / 6)
    h_inf = alpha / (alpha + beta)
    h_tau = 1 / ((alpha + beta) * qt)
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
