/* One line of the access log: in the form of Ray Serve's proxy with fields behind it, or JSON. Pure.
 *
 * What came over the network cannot break a line or steer a terminal: control characters, and bytes that
 * are no UTF-8, are escaped (\xHH in text, \u00HH in JSON); in text blanks and backslashes are too.
 */
#pragma once

#include "core/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rs_access_form {
    bool json;
    const char *node; /* whose log it is: an address */
    int64_t second;   /* since the epoch, that `stamp` shows; 0: none */
    char stamp[20];   /* "2026-11-21 18:31:02", local time as in Ray's logs */
};

struct rs_access {
    int64_t wall; /* ns since the epoch */
    int64_t took; /* ns */
    const char *client, *path, *request_id;
    size_t client_len, path_len, request_id_len;
    const char *method;
    const struct rs_buf *where;  /* what rs_access_where made */
    const char *replica, *cause; /* "" where there is none */
    unsigned status;
    uint64_t bytes; /* of the answer's body */
};

/* What the lines of one route have in common, made once; "" where there is none. */
void rs_access_where(struct rs_buf *out, const struct rs_access_form *form, const char *route,
                     const char *app, const char *deployment);
/* Appends the line with its newline. */
void rs_access_line(struct rs_buf *out, struct rs_access_form *form, const struct rs_access *a);
