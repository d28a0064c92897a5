TITLE A low-voltage activated calcium current

COMMENT
Steady states: Avery & Johnston 1996, J Neurosci 16:5567. Time constants: Randall & Tsien 1997,
Neuropharmacology 36:879. Both shifted by -10 mV for the liquid junction.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX Ca_LVAst
    USEION ca READ eca WRITE ica
    RANGE gCa_LVAstbar, ica
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
    gCa_LVAstbar = 1e-5 (S/cm2)
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
    ica = gCa_LVAstbar * m * m * h * (v - eca)
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
    m_inf = 1 / (1 + exp(-(v + 40) / 6))
    m_tau = (5 + 20 / (1 + exp((v + 35) / 5))) / qt
    h_inf = 1 / (1 + exp((v + 90) / 6.4))
    h_tau = (20 + 50 / (1 + exp((v + 50) / 7))) / qt
}
UNITSON
