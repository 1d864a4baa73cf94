/* Where a running rserve keeps its files: logs, the Python library, sockets.
 *
 *   BASE            --state-dir, else $XDG_STATE_HOME/rserve, else /var/lib/rserve as root, else
 *                   ~/.local/state/rserve, else /tmp/rserve-UID: the first that can be written
 *   BASE/NAME/      one instance: "main", or "main-2".. when that one is locked by another rserve; "head"
 *     lock          flock()ed while it lives, holds its pid
 *     logs/         output of replicas
 *     lib/          rserve-HASH.zip
 *     run/          Unix sockets: of HTTP replicas, and node.sock, where programs connect
 *     values/       applications that programs deployed by value
 *
 * Folders are 0700. Paths are absolute.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct rs_statedir;

/* The folder BASE/NAME of the default base, made if it is not there, for what is beside any instance.
 * *path is the caller's. */
RS_MUST_CHECK int rs_statedir_folder(const char *name, char **path, struct rs_error *err);

/* `base` NULL: the default. `alone`: not another name beside it. RS_CONFLICT then says who holds it,
 * after waiting a while for one that is about to end. */
RS_MUST_CHECK int rs_statedir_open(struct rs_statedir **ret, const char *base, const char *name,
                                   bool alone, struct rs_error *err);
void rs_statedir_free(struct rs_statedir *s); /* unlocks; files stay, but for run/ and values/ */
RS_DEFINE_AUTO(struct rs_statedir *, rs_statedir_free);

/* Borrowed. */
const char *rs_statedir_path(const struct rs_statedir *s);
const char *rs_statedir_logs(const struct rs_statedir *s);
const char *rs_statedir_run(const struct rs_statedir *s);
const char *rs_statedir_values(const struct rs_statedir *s);

/* Writes `data` as lib/NAME-HASH.EXT (`name` is "rserve.zip"), atomically, unless it is there
 * already; *path is the caller's. */
RS_MUST_CHECK int rs_statedir_put(struct rs_statedir *s, const char *name, const void *data,
                                  size_t len, char **path, struct rs_error *err);
/* The same as BASE/lib/NAME-HASH.EXT of the default base, for programs beside any instance. Files of
 * other versions stay: such programs may still run. */
RS_MUST_CHECK int rs_statedir_install(const char *name, const void *data, size_t len, char **path,
                                      struct rs_error *err);
