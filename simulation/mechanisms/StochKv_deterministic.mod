TITLE Potassium current without its channel noise

COMMENT
Rates: Mainen, Joerges, Huguenard & Sejnowski 1995, Neuron 15:1427, in the deterministic limit of
many channels. Parameters carry the names by which the cell models set them.

The conductance follows the gate by one time step and is zero in the first, and the gate is stepped
explicitly: so does the implementation with which the cells were published and fitted, and spikes
move by up to 0.15 ms without it.
ENDCOMMENT

NEURON {
    THREADSAFE
    SUFFIX StochKv_deterministic
    USEION k READ ek WRITE ik
    RANGE gmax
    RANGE conductance
    RANGE q10ConductanceScaling_q10Factor
    RANGE q10ConductanceScaling_experimentalTemp
    RANGE n_instances
    RANGE n_forwardRate_rate
    RANGE n_forwardRate_midpoint
    RANGE n_forwardRate_scale
    RANGE n_reverseRate_rate
    RANGE n_reverseRate_midpoint
    RANGE n_reverseRate_scale
    RANGE n_q10Settings_q10Factor
    RANGE n_q10Settings_experimentalTemp
    RANGE n_q10Settings_TENDEGREES
    RANGE ik, g_scale, rate_scale
}

UNITS {
    (S) = (siemens)
    (mV) = (millivolt)
    (mA) = (milliamp)
}

PARAMETER {
    gmax = 0 (S/cm2)
    : conductance of one channel, which the deterministic limit does not need
    conductance = 1e-5 (uS)
    q10ConductanceScaling_q10Factor = 2.3
    q10ConductanceScaling_experimentalTemp = 296.15 (K)
    n_instances = 1
    n_forwardRate_rate = 0.18 (/ms)
    n_forwardRate_midpoint = -40 (mV)
    n_forwardRate_scale = 9 (mV)
    n_reverseRate_rate = 0.018 (/ms)
    n_reverseRate_midpoint = -40 (mV)
    n_reverseRate_scale = -9 (mV)
    n_q10Settings_q10Factor = 2.3
    n_q10Settings_experimentalTemp = 296.15 (K)
    n_q10Settings_TENDEGREES = 10 (K)
}

ASSIGNED {
    v (mV)
    ek (mV)
    ik (mA/cm2)
    celsius (degC)
    g_scale
    rate_scale
    n_inf
    n_tau (ms)
}

STATE {
    n
    : a state, so that NEURON's SaveState keeps it
    open
}

BREAKPOINT {
    SOLVE states METHOD euler
    ik = gmax * g_scale * open * (v - ek)
}

DERIVATIVE states {
    rates(v)
    open = n^n_instances
    n' = (n_inf - n) / n_tau
}

INITIAL {
    UNITSOFF
    g_scale = q10ConductanceScaling_q10Factor^((celsius + 273.15 - q10ConductanceScaling_experimentalTemp) / 10)
    rate_scale = n_q10Settings_q10Factor^((celsius + 273.15 - n_q10Settings_experimentalTemp) / n_q10Settings_TENDEGREES)
    UNITSON
    rates(v)
    n = n_inf
    open = 0
}

UNITSOFF
PROCEDURE rates(v) {
    LOCAL alpha, beta
    alpha = n_forwardRate_rate * ratio(-(v - n_forwardRate_midpoint) / n_forwardRate_scale)
    beta = n_reverseRate_rate * ratio(-(v - n_reverseRate_midpoint) / n_reverseRate_scale)
    n_inf = alpha / (alpha + beta)
    n_tau = 1 / ((alpha + beta) * rate_scale)
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
