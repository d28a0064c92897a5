TITLE Potassium current of the cell packages, without its channel noise

COMMENT
Rates: Mainen, Joerges, Huguenard & Sejnowski 1995, Neuron 15:1427, in the deterministic limit of many
channels. It lets the hoc files of the NMC portal's packages run, which ask for it by this name; cells that
are read from them get StochKv_deterministic in its place.

The packages give gkbar in what they call S/cm2, and count it as pS/um2: hence the factor of 1e-4.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX StochKv
    USEION k READ ek WRITE ik
    RANGE gkbar, gamma, eta, deterministic
    RANGE ik, tadj
}

UNITS {
    (pS) = (picosiemens)
    (um) = (micron)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

CONSTANT {
    siemens_per_cm2 = 1e-4
}

PARAMETER {
    gkbar = 0 (pS/um2)
    : of the noise, which there is none of here
    gamma = 30 (pS)
    eta = 0 (/um2)
    deterministic = 1
}

ASSIGNED {
    v (mV)
    ek (mV)
    ik (mA/cm2)
    celsius (degC)
    tadj
    n_inf
    n_tau (ms)
}

STATE {
    n
}

UNITSOFF
BREAKPOINT {
    SOLVE states METHOD cnexp
    ik = siemens_per_cm2 * gkbar * tadj * n * (v - ek)
}

DERIVATIVE states {
    rates(v)
    n' = (n_inf - n) / n_tau
}

INITIAL {
    tadj = 2.3^((celsius - 23) / 10)
    rates(v)
    n = n_inf
}

PROCEDURE rates(v) {
    LOCAL alpha, beta
    alpha = 0.18 * ratio(-(v + 40) / 9)
    beta = 0.018 * ratio((v + 40) / 9)
    n_inf = alpha / (alpha + beta)
    n_tau = 1 / ((alpha + beta) * tadj)
}

FUNCTION ratio(x) {
    : x / (exp(x) - 1), whose limit at zero is 1
    if (fabs(x) < 1e-6) {
        ratio = 1 - x / 2
    } else {
        ratio = x / (exp(x) - 1)
    }
}

: The packages seed the noise here.
PROCEDURE setRNG() {
    gamma = gamma
}
UNITSON
