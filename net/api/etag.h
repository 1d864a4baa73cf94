/* Tags of what is desired, and the conditions that requests make with them, so that two who deploy do not
 * overwrite each other unknowingly. Pure.
 *
 * `desired` is what rs_controller_desired tells: {"config": {"document": ..} or null, "apps": {name:
 * {"document": ..}}}. A tag says nothing of what runs: it changes when the configuration does.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

enum { RS_ETAG_LEN = 40 };

/* With its quotes. `app` NULL: of the configuration as a whole (there always is one, perhaps of none).
 * False: there is no such application. */
bool rs_api_etag(const json_t *desired, const char *app, char out[RS_ETAG_LEN]);
/* What an application was deployed as, borrowed; NULL: there is none of this name. */
const json_t *rs_api_desired_app(const json_t *desired, const char *app);

/* Does If-Match or If-None-Match (`header`: "*", or tags with commas between) name `etag`? NULL: there is
 * nothing that has one. */
bool rs_api_etag_named(const char *header, const char *etag);
