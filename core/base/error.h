/* How every fallible function of rserve reports: 0 is success, -1 is failure with `err` filled, a
 * positive value is an expected outcome that the function's header documents.
 *
 * Ownership: an rs_error lives on the caller's stack and owns nothing: nothing to release.
 * Errors:    `err` may be NULL where the caller does not care why.
 * Layer:     core/base may include libc and jansson only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define RS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define RS_MUST_CHECK __attribute__((warn_unused_result))
#define RS_COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum rs_errc { RS_OK, RS_INVALID, RS_NOT_FOUND, RS_CONFLICT, RS_NO_ROOM, RS_TIMEOUT, RS_SYSTEM };

struct rs_error {
    enum rs_errc code;
    int sys_errno; /* errno at the origin, 0 if none */
    char msg[500]; /* one line, no final dot: what was wanted, what was found, where */
};

/* All three return -1, so that a failing path is `return rs_error_set(err, ...);`. */
int rs_error_set(struct rs_error *err, enum rs_errc code, const char *fmt, ...) RS_PRINTF(3, 4);
/* Appends ": strerror(sys_errno)". */
int rs_error_errno(struct rs_error *err, int sys_errno, const char *fmt, ...) RS_PRINTF(3, 4);
/* Puts "prefix: " in front of a message that is already there. */
int rs_error_wrap(struct rs_error *err, const char *fmt, ...) RS_PRINTF(2, 3);
