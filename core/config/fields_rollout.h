/* The keys of `rserve: {rollout}`. Internal to core/config. */
#pragma once

#include "core/config/fields.h"

extern const struct rs_object rs_object_rollout, rs_object_rollout_analysis,
    rs_object_rollout_canary;

/* What follows from the members that are JSON. The struct was filled from a complete object. */
void rs_rollout_conf_fill(struct rs_rollout_conf *r);
