TITLE Small-conductance potassium current, activated by calcium

COMMENT
Half activation and Hill coefficient: Koehler et al. 1996, Science 273:1709. Time constant of 1 ms.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX SK_E2
    USEION k READ ek WRITE ik
    USEION ca READ cai
    RANGE gSK_E2bar, ik
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
    (molar) = (1/liter)
    (mM) = (millimolar)
}

PARAMETER {
    gSK_E2bar = 1e-6 (S/cm2)
    z_tau = 1 (ms)
}

ASSIGNED {
    v (mV)
    ek (mV)
    ik (mA/cm2)
    cai (mM)
    z_inf
}

STATE {
    z
}

BREAKPOINT {
    SOLVE states METHOD cnexp
    ik = gSK_E2bar * z * (v - ek)
}

DERIVATIVE states {
    rates(cai)
    z' = (z_inf - z) / z_tau
}

INITIAL {
    rates(cai)
    z = z_inf
}

UNITSOFF
PROCEDURE rates(calcium) {
    if (calcium < 1e-7) {
        z_inf = 0
    } else {
        z_inf = 1 / (1 + (0.00043 / calcium)^4.8)
    }
}
UNITSON
