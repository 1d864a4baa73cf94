#include "core/base/json.h"

#include "core/base/alloc.h"

const char *rs_json_str(const json_t *obj, const char *key, const char *def)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_string(v) ? json_string_value(v) : def;
}

int64_t rs_json_int(const json_t *obj, const char *key, int64_t def)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_integer(v) ? json_integer_value(v) : def;
}

double rs_json_num(const json_t *obj, const char *key, double def)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_number(v) ? json_number_value(v) : def;
}

bool rs_json_bool(const json_t *obj, const char *key, bool def)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_boolean(v) ? json_is_true(v) : def;
}

int rs_json_parse(json_t **ret, const char *text, size_t len, const char *what,
                  struct rs_error *err)
{
    json_error_t e;
    json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);

    if (!j)
        return rs_error_set(err, RS_INVALID, "%s:%d:%d: not valid JSON: %s", what, e.line, e.column,
                            e.text);
    *ret = j;
    return 0;
}

char *rs_json_dump(const json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

    return text ? text : rs_strdup("null");
}
