TITLE The interneurons' high-voltage activated calcium current

COMMENT
Rates: Reuveni, Friedman, Amitai & Gutnick 1993, J Neurosci 13:4609. No temperature correction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX Ca
    USEION ca READ eca WRITE ica
    RANGE gCabar, ica
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

PARAMETER {
    gCabar = 1e-5 (S/cm2)
}

ASSIGNED {
    v (mV)
    eca (mV)
    ica (mA/cm2)
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
    ica = gCabar * m * m * h * (v - eca)
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
    alpha = 0.209 * ratio(-(v + 27) / 3.8)
    beta = 0.94 * exp(-(v + 75) / 17)
    m_tau = 1 / (alpha + beta)
    m_inf = alpha * m_tau
    alpha = 0.000457 * exp(-(v + 13) / 50)
    beta = 0.0065 / (1 + exp(-(v + 15) / 28))
    h_tau = 1 / (alpha + beta)
    h_inf = alpha * h_tau
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
