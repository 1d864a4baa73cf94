#include "net/api/snapshot.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == ':';
}

static size_t name_length(const char *at, const char *end)
{
    size_t n = 0;

    while (at + n < end && is_name(at[n]))
        n++;
    return n;
}

/* The family that the samples after it belong to. */
static json_t *family(json_t *all, const char *name, size_t n)
{
    json_t *last = json_array_get(all, json_array_size(all) - 1);

    if (json_array_size(all) > 0 && strlen(rs_json_str(last, "name", "")) == n &&
        strncmp(rs_json_str(last, "name", ""), name, n) == 0)
        return last;
    last = json_pack("{s:s%, s:s, s:s, s:[]}", "name", name, n, "type", "untyped", "help", "",
                     "samples");
    if (last)
        json_array_append_new(all, last);
    return last;
}

/* "# HELP name text", "# TYPE name kind". */
static void comment(json_t *all, const char *at, const char *end)
{
    bool help = end - at > 7 && memcmp(at, "# HELP ", 7) == 0;
    const char *name = at + 7;
    size_t n;
    json_t *f;

    if (!help && !(end - at > 7 && memcmp(at, "# TYPE ", 7) == 0))
        return;
    n = name_length(name, end);
    f = n ? family(all, name, n) : NULL;
    if (f && name + n < end)
        json_object_set_new(f, help ? "help" : "type",
                            json_stringn(name + n + 1, (size_t)(end - name) - n - 1));
}

/* `{a="b",..}` at *at, which moves behind it. */
static json_t *labels(const char **at, const char *end)
{
    json_t *all = json_object();
    const char *p = *at;

    if (p < end && *p == '{')
        p++;
    else
        return all;
    while (p < end && *p != '}') {
        rs_auto(rs_freep) char *name = rs_strndup(p, name_length(p, end));
        rs_auto(rs_buf_fini) struct rs_buf value = {0};

        p += strlen(name);
        if (end - p < 2 || p[0] != '=' || p[1] != '"')
            break;
        for (p += 2; p < end && *p != '"'; p++) {
            bool escaped = *p == '\\' && p + 1 < end;

            p += escaped;
            rs_buf_append(&value, escaped && *p == 'n' ? "\n" : p, 1);
        }
        json_object_set_new(all, name, json_stringn(rs_buf_text(&value), rs_buf_len(&value)));
        p += p < end;
        p += p < end && *p == ',';
    }
    *at = p < end ? p + 1 : p;
    return all;
}

static void sample(json_t *all, const char *at, const char *end)
{
    size_t n = name_length(at, end);
    const char *p = at + n;
    json_t *f = json_array_get(all, json_array_size(all) - 1), *l;
    const char *of = rs_json_str(f, "name", "");
    char *stop = NULL;
    double value;

    if (n == 0)
        return;
    if (json_array_size(all) == 0 || n < strlen(of) || strncmp(at, of, strlen(of)) != 0)
        f = family(all, at, n);
    l = labels(&p, end);
    value = strtod(p, &stop);
    if (stop == p) {
        json_decref(l);
        return;
    }
    json_array_append_new(json_object_get(f, "samples"),
                          json_pack("{s:s%, s:o, s:o}", "name", at, n, "labels", l, "value",
                                    isfinite(value) ? json_real(value) : json_null()));
}

static json_t *only(json_t *all, const char *prefix)
{
    json_t *some = json_array(), *f;
    size_t i;

    json_array_foreach (all, i, f)
        if (strncmp(rs_json_str(f, "name", ""), prefix, strlen(prefix)) == 0)
            json_array_append(some, f);
    json_decref(all);
    return some;
}

json_t *rs_api_snapshot(const char *text, const char *prefix)
{
    json_t *all = json_array();

    while (*text) {
        const char *end = text + strcspn(text, "\n");

        if (*text == '#')
            comment(all, text, end);
        else
            sample(all, text, end);
        text = end + (*end == '\n');
    }
    return prefix && *prefix ? only(all, prefix) : all;
}
