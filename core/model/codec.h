/* Structs to JSON and back by a table of their members; shared by the files of core/model. */
#pragma once

#include "core/base/error.h"

#include <jansson.h>
#include <stddef.h>

enum rs_member_kind {
    RS_MEMBER_NAME, /* char *, never empty: decoding fails without it */
    RS_MEMBER_TEXT, /* char *, NULL: left out */
    RS_MEMBER_UINT, /* unsigned */
    RS_MEMBER_INT,  /* int, >= 0 */
    RS_MEMBER_U64,  /* uint64_t below 2^63 */
    RS_MEMBER_REAL, /* double */
    RS_MEMBER_BOOL,
    RS_MEMBER_OBJECT, /* json_t *, an object; {} when absent */
    RS_MEMBER_STATE,  /* enum rs_replica_state, by its name */
};

struct rs_member {
    const char *name;
    enum rs_member_kind kind;
    size_t offset;
};

/* New object. */
json_t *rs_members_encode(const void *from, const struct rs_member *m, size_t n);
/* `to` is zeroed; on failure it holds what rs_members_fini can release. `what` names the object. */
RS_MUST_CHECK int rs_members_decode(void *to, const json_t *obj, const struct rs_member *m,
                                    size_t n, const char *what, struct rs_error *err);
void rs_members_fini(void *of, const struct rs_member *m, size_t n);

/* An array of objects: obj[key], absent counts as empty. -1: not an array. */
RS_MUST_CHECK int rs_member_array(const json_t *obj, const char *key, const json_t **ret,
                                  struct rs_error *err);
