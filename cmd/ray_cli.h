/* The group `ray`: starting, stopping and looking at the nodes of a cluster, in the words of Ray's
 * command line. What they do is what `rserve head`, `rserve worker` and the REST API do.
 */
#pragma once

#include "cmd/verb.h"

extern const struct rs_verb rs_ray_verb_start;
extern const struct rs_verb rs_ray_verb_status;
extern const struct rs_verb rs_ray_verb_stop;
