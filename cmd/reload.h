/* Watches the source files below some folders and says when they have changed.
 *
 * Files that end in .py, .pyi, .yaml, .yml, .json or .toml; folders whose name begins with a dot, and
 * __pycache__, node_modules and site-packages are left out. Editors write a file in several steps, and
 * tools many files: it says so once nothing has happened for 200 ms, or after 2 s of changes without end.
 *
 * Thread: the loop's.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"

#include <stdbool.h>
#include <stddef.h>

struct rs_reload;

struct rs_reload_change {
    const char *const *files; /* at least one; borrowed */
    size_t n;
    bool more; /* too many to name them all */
};

/* `folders` ends with NULL; one that is below another one adds nothing. */
RS_MUST_CHECK int rs_reload_new(struct rs_reload **ret, struct rs_loop *loop,
                                const char *const *folders,
                                void (*changed)(const struct rs_reload_change *change, void *arg),
                                void *arg, struct rs_error *err);
void rs_reload_free(struct rs_reload *r);
RS_DEFINE_AUTO(struct rs_reload *, rs_reload_free);
