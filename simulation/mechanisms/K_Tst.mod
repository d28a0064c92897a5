TITLE Transient potassium current

COMMENT
Korngreen & Sakmann 2000, J Physiol 525:621, shifted by -10 mV for the liquid junction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX K_Tst
    USEION k READ ek WRITE ik
    RANGE gK_Tstbar, ik
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
    gK_Tstbar = 1e-5 (S/cm2)
}

ASSIGNED {
    v (mV)
    ek (mV)
    ik (mA/cm2)
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
    ik = gK_Tstbar * m^4 * h * (v - ek)
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
    LOCAL u
    u = v + 10
    m_inf = 1 / (1 + exp(-u / 19))
    m_tau = (0.34 + 0.92 * exp(-((u + 71) / 59)^2)) / qt
    h_inf = 1 / (1 + exp((u + 66) / 10))
    h_tau = (8 + 49 * exp(-((u + 73) / 23)^2)) / qt
}
UNITSON
