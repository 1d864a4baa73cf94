/* The group `serve`: the command line of Ray Serve, as far as its users' scripts go.
 *
 * Nothing is done twice: these verbs turn their options into what rserve's own verbs do, or into
 * calls of the REST API (cmd/remote.h).
 *
 * Exit status: as everywhere, but what Ray calls an error of the command and not of its usage is 1, an
 * invalid configuration too.
 */
#pragma once

#include "cmd/verb.h"

#define RS_RAY_VERSION "2.60.0" /* whose command line this is */

extern const struct rs_verb rs_serve_verb_build;
extern const struct rs_verb rs_serve_verb_deploy;
extern const struct rs_verb rs_serve_verb_run;
extern const struct rs_verb rs_serve_verb_start;
