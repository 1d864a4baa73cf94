/* Small helpers over jansson, for documents that we define ourselves.
 *
 * Ownership: as in jansson; rs_auto(rs_json_decrefp) json_t *j = NULL;
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

static inline void rs_json_decref(json_t *j)
{
    json_decref(j);
}
RS_DEFINE_AUTO(json_t *, rs_json_decref);

/* Member of an object, or the default when it is absent or of another type. Text is borrowed. */
const char *rs_json_str(const json_t *obj, const char *key, const char *def);
int64_t rs_json_int(const json_t *obj, const char *key, int64_t def);
double rs_json_num(const json_t *obj, const char *key, double def);
bool rs_json_bool(const json_t *obj, const char *key, bool def);

/* Parses one bounded document; an error tells `what`, line and column. */
RS_MUST_CHECK int rs_json_parse(json_t **ret, const char *text, size_t len, const char *what,
                                struct rs_error *err);
/* One line of ASCII, keys in the order in which they were set, reals as short as they read back.
 * Never NULL ("null" for NULL); the caller frees. */
char *rs_json_dump(const json_t *j);
