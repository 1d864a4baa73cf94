#include "core/base/json.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/text.h"

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

/* Numbers and texts are jansson's; a real is written as short as it reads back ("0.2", where jansson
 * writes 0.20000000000000001). */
static int put_piece(const char *data, size_t n, void *out)
{
    rs_buf_append(out, data, n);
    return 0;
}

static void put(struct rs_buf *out, const json_t *j)
{
    char real[RS_DOUBLE_TEXT];
    const char *key;
    json_t *value;
    size_t i;
    bool first = true;

    switch (json_typeof(j)) {
    case JSON_OBJECT:
        rs_buf_puts(out, "{");
        for (void *it = json_object_iter((json_t *)(uintptr_t)j); it;
             it = json_object_iter_next((json_t *)(uintptr_t)j, it)) {
            rs_auto(rs_json_decrefp) json_t *name = NULL;

            key = json_object_iter_key(it);
            name = json_string(key);
            rs_buf_puts(out, first ? "" : ",");
            first = false;
            (void)json_dump_callback(name, put_piece, out, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
            rs_buf_puts(out, ":");
            put(out, json_object_iter_value(it));
        }
        rs_buf_puts(out, "}");
        break;
    case JSON_ARRAY:
        rs_buf_puts(out, "[");
        json_array_foreach (j, i, value) {
            rs_buf_puts(out, i ? "," : "");
            put(out, value);
        }
        rs_buf_puts(out, "]");
        break;
    case JSON_REAL:
        rs_buf_puts(out, rs_text_double(json_real_value(j), real));
        break;
    default:
        (void)json_dump_callback(j, put_piece, out, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        break;
    }
}

char *rs_json_dump(const json_t *j)
{
    struct rs_buf out = {0};

    if (!j)
        return rs_strdup("null");
    put(&out, j);
    return rs_buf_steal(&out);
}
