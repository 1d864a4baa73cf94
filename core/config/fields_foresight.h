/* The keys of a deployment's `rserve: {autoscaling}`. Internal to core/config. */
#pragma once

#include "core/config/fields.h"

extern const struct rs_object rs_object_foresight, rs_object_foresight_entry,
    rs_object_foresight_predict;

/* What follows from the members that are JSON. The struct was filled from a complete object. */
void rs_foresight_conf_fill(struct rs_foresight_conf *f);
/* Time zones that are not there, at their places; `map` is the deployment's node. */
void rs_rules_zones(struct rs_walk *w, const struct rs_node *map);
/* Of a deployment's complete options. */
void rs_rules_foresight(struct rs_walk *w, const json_t *options);
