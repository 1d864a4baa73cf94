/* What flows through a declared graph: a body with the head that it came with. The client's request is
 * one, the answer of a stage is one, and so is what is made of several.
 *
 * Ownership: counted (not atomic): the steps that may still need it, a cache, the action that carries
 *            it. It does not change once it is shared, but for what it remembers of itself.
 * Bodies:    inline bytes, or a memfd whose bytes are read only where a step looks into them.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/base/list.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct rs_value {
    unsigned refs;
    unsigned status;       /* of an answer; 0: the client's request */
    struct rs_buf headers; /* name NUL value NUL ..., names in lower case */
    struct rs_buf body;    /* inline, or what was read of fd */
    int fd;                /* memfd that holds the body; -1: inline */
    uint64_t len;
    json_t *json;     /* once it was asked for */
    const char *from; /* stage that answered it; NULL: none. The plan's */
};

struct rs_value *rs_value_new(void);
struct rs_value *rs_value_ref(struct rs_value *v);
void rs_value_unref(struct rs_value *v); /* NULL is fine */
RS_DEFINE_AUTO(struct rs_value *, rs_value_unref);

/* A whole answer of this type. */
struct rs_value *rs_value_made(unsigned status, const char *type, const void *data, size_t len);
/* One line of text for people. */
struct rs_value *rs_value_line(unsigned status, const char *fmt, ...) RS_PRINTF(2, 3);

/* Copies the body into a memfd that nobody else has; `sealed`: and that nobody can change, whoever it is
 * passed on to. -1 with errno: there is no room. */
RS_MUST_CHECK int rs_value_own(struct rs_value *v, bool sealed);

/* `name` in lower case. */
void rs_value_put_header(struct rs_value *v, const char *name, const char *text);
/* The first header of that name (lower case); NULL: none. */
const char *rs_value_header(const struct rs_value *v, const char *name);
/* The bytes, read once if they are in a memfd. -1: they cannot be read. */
RS_MUST_CHECK int rs_value_bytes(struct rs_value *v, const char **data, struct rs_error *err);
/* As JSON, borrowed from the value. -1: it is none, and where it stops being some. */
RS_MUST_CHECK int rs_value_json(struct rs_value *v, const json_t **ret, struct rs_error *err);
/* Appends it as a JSON text: JSON as it is, text/... as a string. -1: it is neither. */
RS_MUST_CHECK int rs_value_put_json(struct rs_value *v, struct rs_buf *out, struct rs_error *err);
/* Appends a JSON string with its quotes. */
void rs_value_put_string(struct rs_buf *out, const char *text, size_t len);
/* Bytes that it keeps in memory. */
size_t rs_value_weight(const struct rs_value *v);

/* "a.b.0" in a document; an empty path is the document. NULL: not there. */
const json_t *rs_json_at(const json_t *doc, const char *path);
