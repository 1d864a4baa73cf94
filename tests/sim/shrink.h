/* A run in a process of its own, so that a crash is an outcome as well; and fewer and fewer steps that
 * have the same outcome. */
#pragma once

#include "tests/sim/sim.h"

struct sim_outcome {
    char invariant[24]; /* that was violated; "crash"; "": none */
    char text[600];
    int64_t at;
    uint64_t events, requests;
};

struct sim_outcome sim_try(const struct sim_script *script, enum sim_mutation mutation);
/* By delta debugging: leaves out steps as long as the same invariant is violated. The number of runs. */
unsigned sim_shrink(const struct sim_script *script, const struct sim_outcome *o,
                    enum sim_mutation mutation, struct sim_script *ret, struct sim_outcome *last);
