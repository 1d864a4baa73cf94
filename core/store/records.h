/* What must outlive the process: named records in an SQLite file. (kind, name) -> bytes.
 *
 * Durable:   what rs_records_commit has returned 0 for is on the disk (WAL, synchronous).
 * Format:    application_id says that the file is rserve's, user_version which format it has. An older
 *            one is brought up to date in one transaction. A newer one is refused and left alone.
 * Broken:    a file that is damaged, or somebody else's, is moved aside to PATH.damaged-N or
 *            PATH.foreign-N, never deleted, and a new one begun.
 * Ownership: rs_records_free closes it; what the callbacks are given is borrowed.
 * Thread:    the one that opened it. Calls wait for the disk.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { RS_RECORDS_FORMAT = 1 };

struct rs_records;

/* `aside`: where a file that could not be used was moved to, the caller's; NULL: it was good, or there
 * was none. RS_CONFLICT: the file is of a newer rserve. */
RS_MUST_CHECK int rs_records_open(struct rs_records **ret, const char *path, char **aside,
                                  struct rs_error *err);
void rs_records_free(struct rs_records *r); /* NULL is fine; what is not committed is forgotten */
RS_DEFINE_AUTO(struct rs_records *, rs_records_free);
const char *rs_records_path(const struct rs_records *r);

/* Between the two, all or nothing. After a failed call the transaction is over and nothing of it was
 * kept; one that was not committed is dropped by the next begin. */
RS_MUST_CHECK int rs_records_begin(struct rs_records *r, struct rs_error *err);
RS_MUST_CHECK int rs_records_commit(struct rs_records *r, struct rs_error *err);
RS_MUST_CHECK int rs_records_put(struct rs_records *r, const char *kind, const char *name,
                                 const void *data, size_t len, struct rs_error *err);
/* All of the kind that `keep` does not say yes to. */
RS_MUST_CHECK int rs_records_prune(struct rs_records *r, const char *kind,
                                   bool (*keep)(const char *name, void *arg), void *arg,
                                   struct rs_error *err);

/* Each of the kind, by name; `fn` may not change records. */
RS_MUST_CHECK int rs_records_each(struct rs_records *r, const char *kind,
                                  void (*fn)(const char *name, const char *data, size_t len,
                                             void *arg),
                                  void *arg, struct rs_error *err);
