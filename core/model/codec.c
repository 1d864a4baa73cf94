#include "core/model/codec.h"

#include "core/base/alloc.h"
#include "core/model/report.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char *type_name(const json_t *j)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "text",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null",
    };

    return j ? names[json_typeof(j)] : "nothing";
}

static json_t *encode_one(const void *at, enum rs_member_kind kind)
{
    switch (kind) {
    case RS_MEMBER_NAME:
    case RS_MEMBER_TEXT:
        return *(char *const *)at ? json_string(*(char *const *)at) : NULL;
    case RS_MEMBER_UINT:
        return json_integer((json_int_t) * (const unsigned *)at);
    case RS_MEMBER_INT:
        return json_integer(*(const int *)at);
    case RS_MEMBER_U64:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case RS_MEMBER_REAL:
        return json_real(*(const double *)at);
    case RS_MEMBER_BOOL:
        return json_boolean(*(const bool *)at);
    case RS_MEMBER_OBJECT:
        return *(json_t *const *)at ? json_incref(*(json_t *const *)at) : json_object();
    case RS_MEMBER_STATE:
        return json_string(rs_replica_state_name(*(const enum rs_replica_state *)at));
    }
    return NULL;
}

json_t *rs_members_encode(const void *from, const struct rs_member *m, size_t n)
{
    json_t *obj = json_object();

    for (size_t i = 0; i < n; i++) {
        json_t *v = encode_one((const char *)from + m[i].offset, m[i].kind);

        if (v)
            json_object_set_new_nocheck(obj, m[i].name, v);
    }
    return obj;
}

static bool decode_integer(void *at, enum rs_member_kind kind, const json_t *v)
{
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < 0)
        return false;
    if (kind == RS_MEMBER_U64)
        *(uint64_t *)at = (uint64_t)n;
    else if (kind == RS_MEMBER_UINT && n <= (json_int_t)UINT_MAX)
        *(unsigned *)at = (unsigned)n;
    else if (kind == RS_MEMBER_INT && n <= INT_MAX)
        *(int *)at = (int)n;
    else
        return false;
    return true;
}

static bool decode_state(enum rs_replica_state *at, const json_t *v)
{
    int state = json_is_string(v) ? rs_replica_state_parse(json_string_value(v)) : -1;

    if (state < 0)
        return false;
    *at = (enum rs_replica_state)state;
    return true;
}

/* False: not of that kind. */
static bool decode_one(void *at, enum rs_member_kind kind, json_t *v)
{
    switch (kind) {
    case RS_MEMBER_NAME:
        if (!json_is_string(v) || json_string_length(v) == 0)
            return false;
        *(char **)at = rs_strdup(json_string_value(v));
        return true;
    case RS_MEMBER_TEXT:
        if (!json_is_string(v))
            return json_is_null(v);
        *(char **)at = rs_strdup(json_string_value(v));
        return true;
    case RS_MEMBER_UINT:
    case RS_MEMBER_INT:
    case RS_MEMBER_U64:
        return decode_integer(at, kind, v);
    case RS_MEMBER_REAL:
        *(double *)at = json_number_value(v);
        return json_is_number(v);
    case RS_MEMBER_BOOL:
        *(bool *)at = json_is_true(v);
        return json_is_boolean(v);
    case RS_MEMBER_OBJECT:
        if (!json_is_object(v))
            return false;
        *(json_t **)at = json_incref(v);
        return true;
    case RS_MEMBER_STATE:
        return decode_state(at, v);
    }
    return false;
}

int rs_members_decode(void *to, const json_t *obj, const struct rs_member *m, size_t n,
                      const char *what, struct rs_error *err)
{
    static const char *const wanted[] = {
        [RS_MEMBER_NAME] = "text that is not empty",
        [RS_MEMBER_TEXT] = "text or null",
        [RS_MEMBER_UINT] = "an integer >= 0",
        [RS_MEMBER_INT] = "an integer >= 0",
        [RS_MEMBER_U64] = "an integer >= 0",
        [RS_MEMBER_REAL] = "a number",
        [RS_MEMBER_BOOL] = "true or false",
        [RS_MEMBER_OBJECT] = "an object",
        [RS_MEMBER_STATE] = "the name of a replica state",
    };

    if (!json_is_object(obj))
        return rs_error_set(err, RS_INVALID, "%s: expected an object, got %s", what,
                            type_name(obj));
    for (size_t i = 0; i < n; i++) {
        void *at = (char *)to + m[i].offset;
        json_t *v = json_object_get(obj, m[i].name);

        if (!v && m[i].kind == RS_MEMBER_OBJECT)
            *(json_t **)at = json_object();
        if (!v && m[i].kind != RS_MEMBER_NAME)
            continue;
        if (!v || !decode_one(at, m[i].kind, v))
            return rs_error_set(err, RS_INVALID, "%s.%s: expected %s, got %s", what, m[i].name,
                                wanted[m[i].kind], type_name(v));
    }
    return 0;
}

void rs_members_fini(void *of, const struct rs_member *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *at = (char *)of + m[i].offset;

        if (m[i].kind == RS_MEMBER_NAME || m[i].kind == RS_MEMBER_TEXT)
            free(*(char **)at);
        else if (m[i].kind == RS_MEMBER_OBJECT)
            json_decref(*(json_t **)at);
    }
}

int rs_member_array(const json_t *obj, const char *key, const json_t **ret, struct rs_error *err)
{
    const json_t *v = json_object_get(obj, key);

    if (v && !json_is_array(v))
        return rs_error_set(err, RS_INVALID, "%s: expected an array, got %s", key, type_name(v));
    *ret = v;
    return 0;
}
