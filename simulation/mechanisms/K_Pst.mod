TITLE Persistent, slowly inactivating potassium current

COMMENT
Korngreen & Sakmann 2000, J Physiol 525:621, shifted by -10 mV for the liquid junction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX K_Pst
    USEION k READ ek WRITE ik
    RANGE gK_Pstbar, ik
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
    gK_Pstbar = 1e-5 (S/cm2)
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
    ik = gK_Pstbar * m * m * h * (v - ek)
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
    m_inf = 1 / (1 + exp(-(u + 1) / 12))
    if (u < -50) {
        m_tau = (1.25 + 175.03 * exp(0.026 * u)) / qt
    } else {
        m_tau = (1.25 + 13 * exp(-0.026 * u)) / qt
    }
    h_inf = 1 / (1 + exp((u + 54) / 11))
    h_tau = (360 + (1010 + 24 * (u + 55)) * exp(-((u + 75) / 48)^2)) / qt
}
UNITSON
