/* Applications of a running instance, for verbs that deploy to one and wait for what comes of it.
 *
 * A document is what PUT /api/serve/applications/ takes.
 */
#pragma once

#include "cmd/remote.h"
#include "core/base/error.h"
#include "core/config/config.h"

#include <jansson.h>

/* Says where modules are imported from in applications that do not: a head elsewhere in the file system
 * would look in its own working directory. `c` is what `doc` was made of. */
void rs_deployed_pin_app_dirs(json_t *doc, const struct rs_config *c);
/* Adds what is deployed there under other names, as it was deployed. */
RS_MUST_CHECK int rs_deployed_keep_others(struct rs_remote *r, json_t *doc, struct rs_error *err);
/* PUT of `doc` together with those (`in_place`: as rs_remote_put_in_place). Where somebody else changes
 * them at the same time, it looks again. */
RS_MUST_CHECK int rs_deployed_add(struct rs_remote *r, const json_t *doc, bool in_place,
                                  struct rs_error *err);
/* Until each application of `doc` runs: says so on standard output. -1: one has failed. */
RS_MUST_CHECK int rs_deployed_wait(const struct rs_remote *r, const json_t *doc,
                                   struct rs_error *err);
