/* Watches the source files below a folder and says when they have changed.
 *
 * Files that end in .py, .pyi, .yaml, .yml, .json or .toml; folders whose name begins with a dot, and
 * __pycache__, node_modules and site-packages are left out. Editors write a file in several steps: it
 * says so once nothing has happened for 200 ms.
 *
 * Thread: the loop's.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"

struct rs_reload;

/* `changed` gets the path of one of the files that changed. */
RS_MUST_CHECK int rs_reload_new(struct rs_reload **ret, struct rs_loop *loop, const char *folder,
                                void (*changed)(const char *file, void *arg), void *arg,
                                struct rs_error *err);
void rs_reload_free(struct rs_reload *r);
RS_DEFINE_AUTO(struct rs_reload *, rs_reload_free);
