#include "core/resource/labels.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PART_MAX 255

/* Letters and digits, and between those "-", "_", "." and "/". */
static bool is_part(const char *s, size_t n, bool may_be_empty)
{
    if (n == 0)
        return may_be_empty;
    if (n > PART_MAX || !isalnum((unsigned char)s[0]) || !isalnum((unsigned char)s[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("-_./", s[i]))
            return false;
    return true;
}

int rs_labels_parse(json_t **ret, const char *text, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *labels = json_object();

    while (*text) {
        size_t n = strcspn(text, ",");
        const char *eq = memchr(text, '=', n);
        size_t key = eq ? (size_t)(eq - text) : 0;

        if (!eq || !is_part(text, key, false) || !is_part(eq + 1, n - key - 1, true))
            return rs_error_set(err, RS_INVALID,
                                "expected labels as key=value,key=value; got \"%.*s\"",
                                (int)(n < 80 ? n : 80), text);
        rs_auto(rs_freep) char *name = rs_asprintf("%.*s", (int)key, text);

        json_object_set_new(labels, name, json_stringn(eq + 1, n - key - 1));
        text += n;
        text += *text == ',';
    }
    *ret = rs_steal(labels);
    return 0;
}

/* Whether `value` stands in "a,b)". */
static bool in_list(const char *list, const char *value)
{
    size_t want = strlen(value);

    while (*list && *list != ')') {
        size_t n, end;

        list += strspn(list, " ");
        n = strcspn(list, ",)");
        for (end = n; end > 0 && list[end - 1] == ' '; end--)
            ;
        if (end == want && strncmp(list, value, want) == 0)
            return true;
        list += n;
        list += *list == ',';
    }
    return false;
}

static bool meets(const char *value, const char *want)
{
    bool negated = *want == '!';
    bool found;

    want += negated;
    if (strncmp(want, "in(", 3) == 0)
        found = value && in_list(want + 3, value);
    else
        found = value && strcmp(value, want) == 0;
    return found != negated;
}

bool rs_labels_match(const json_t *labels, const json_t *selector)
{
    const char *key;
    json_t *want;

    json_object_foreach ((json_t *)(uintptr_t)selector, key, want)
        if (!json_is_string(want) ||
            !meets(json_string_value(json_object_get(labels, key)), json_string_value(want)))
            return false;
    return true;
}

void rs_labels_print(struct rs_buf *out, const json_t *selector)
{
    const char *key, *before = "";
    json_t *want;

    json_object_foreach ((json_t *)(uintptr_t)selector, key, want) {
        rs_buf_printf(out, "%s%s=%s", before, key,
                      json_is_string(want) ? json_string_value(want) : "?");
        before = ", ";
    }
}
