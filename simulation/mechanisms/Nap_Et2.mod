TITLE Persistent sodium current

COMMENT
Steady states and inactivation: Magistretti & Alonso 1999, J Gen Physiol 114:491. Activation is
six times slower than that of the fast current (Colbert & Pan 2002, Nat Neurosci 5:533).
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX Nap_Et2
    USEION na READ ena WRITE ina
    RANGE gNap_Et2bar, ina
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
    gNap_Et2bar = 1e-5 (S/cm2)
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
    ina = gNap_Et2bar * m * m * m * h * (v - ena)
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
    m_inf = 1 / (1 + exp(-(v + 52.6) / 4.6))
    alpha = 1.092 * ratio(-(v + 38) / 6)
    beta = 0.744 * ratio((v + 38) / 6)
    m_tau = 6 / ((alpha + beta) * qt)
    h_inf = 1 / (1 + exp((v + 48.8) / 10))
    alpha = 1.33344e-5 * ratio((v + 17) / 4.63)
    beta = 1.82522e-5 * ratio(-(v + 64.4) / 2.63)
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
