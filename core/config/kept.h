/* A configuration as data that another process, or this one after a restart, makes the same of.
 *
 * {"dir", "app_dir" or null, "document"}: relative paths start at `dir`; `app_dir` is that of
 * applications which name none; `document` is what the user wrote, as JSON.
 * Thread: any.
 */
#pragma once

#include "core/config/config.h"

/* A new reference. */
json_t *rs_config_keep(const struct rs_config *c);
RS_MUST_CHECK int rs_config_kept(struct rs_config **ret, const json_t *kept, struct rs_error *err);
