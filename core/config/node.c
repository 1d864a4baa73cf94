#include "core/config/node.h"

#include "core/base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct rs_node *from_json(struct rs_arena *arena, const json_t *json, int depth,
                                 struct rs_error *err);

static int adopt(struct rs_node *n, const struct rs_node *child, struct rs_error *err)
{
    n->size += child->size;
    if (child->height + 1 > n->height)
        n->height = child->height + 1;
    if (n->size > RS_NODE_SIZE)
        return rs_error_set(err, RS_INVALID, "the document holds more than %d values",
                            RS_NODE_SIZE);
    return 0;
}

static int list_from_json(struct rs_arena *arena, struct rs_node *n, const json_t *json, int depth,
                          struct rs_error *err)
{
    n->kind = RS_NODE_LIST;
    n->items = rs_arena_alloc(arena, json_array_size(json) * sizeof(struct rs_node *));
    for (size_t i = 0; i < json_array_size(json); i++) {
        struct rs_node *item = from_json(arena, json_array_get(json, i), depth + 1, err);

        if (!item || adopt(n, item, err) < 0)
            return -1;
        n->items[n->count++] = item;
    }
    return 0;
}

static int map_from_json(struct rs_arena *arena, struct rs_node *n, json_t *json, int depth,
                         struct rs_error *err)
{
    n->kind = RS_NODE_MAP;
    n->entries = rs_arena_alloc(arena, json_object_size(json) * sizeof(*n->entries));
    for (void *it = json_object_iter(json); it; it = json_object_iter_next(json, it)) {
        const char *key = json_object_iter_key(it);
        struct rs_node *value = from_json(arena, json_object_iter_value(it), depth + 1, err);

        if (!value || adopt(n, value, err) < 0)
            return -1;
        n->entries[n->count++] = (struct rs_node_entry){
            .key = rs_arena_strndup(arena, key, strlen(key)), .value = value};
    }
    return 0;
}

static int text_from_json(struct rs_arena *arena, struct rs_node *n, const json_t *json,
                          struct rs_error *err)
{
    const char *text = json_string_value(json);
    size_t len = json_string_length(json);

    if (strlen(text) != len)
        return rs_error_set(err, RS_INVALID, "a text may not hold the character NUL");
    n->kind = RS_NODE_TEXT;
    n->text = rs_arena_strndup(arena, text, len);
    return 0;
}

static int fill_from_json(struct rs_arena *arena, struct rs_node *n, const json_t *json, int depth,
                          struct rs_error *err)
{
    char text[64];

    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return map_from_json(arena, n, (json_t *)(uintptr_t)json, depth, err);
    case JSON_ARRAY:
        return list_from_json(arena, n, json, depth, err);
    case JSON_STRING:
        return text_from_json(arena, n, json, err);
    case JSON_INTEGER:
        n->kind = RS_NODE_INT;
        n->integer = json_integer_value(json);
        n->real = (double)n->integer;
        n->text = rs_arena_strndup(arena, text,
                                   (size_t)snprintf(text, sizeof(text), "%" PRId64, n->integer));
        break;
    case JSON_REAL:
        n->kind = RS_NODE_REAL;
        n->real = json_real_value(json);
        n->text =
            rs_arena_strndup(arena, text, (size_t)snprintf(text, sizeof(text), "%.17g", n->real));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        n->kind = RS_NODE_BOOL;
        n->boolean = json_is_true(json);
        n->text = n->boolean ? "true" : "false";
        break;
    case JSON_NULL:
        n->kind = RS_NODE_NULL;
        n->text = "null";
        break;
    }
    return 0;
}

static struct rs_node *from_json(struct rs_arena *arena, const json_t *json, int depth,
                                 struct rs_error *err)
{
    struct rs_node *n = rs_arena_alloc(arena, sizeof(*n));

    n->size = 1;
    if (depth > RS_NODE_DEPTH) {
        rs_error_set(err, RS_INVALID, "values are nested deeper than %d levels", RS_NODE_DEPTH);
        return NULL;
    }
    return fill_from_json(arena, n, json, depth, err) < 0 ? NULL : n;
}

struct rs_node *rs_node_from_json(struct rs_arena *arena, const json_t *json, struct rs_error *err)
{
    return from_json(arena, json, 0, err);
}

json_t *rs_node_json(const struct rs_node *n)
{
    json_t *j;

    switch (n->kind) {
    case RS_NODE_NULL:
        return json_null();
    case RS_NODE_BOOL:
        return json_boolean(n->boolean);
    case RS_NODE_INT:
        return json_integer(n->integer);
    case RS_NODE_REAL:
        /* JSON has no infinity: what the user wrote is kept as text. */
        return isfinite(n->real) ? json_real(n->real) : json_string(n->text);
    case RS_NODE_TEXT:
        j = json_string(n->text);
        return j ? j : json_string_nocheck(n->text);
    case RS_NODE_LIST:
        j = json_array();
        for (size_t i = 0; i < n->count; i++)
            json_array_append_new(j, rs_node_json(n->items[i]));
        return j;
    case RS_NODE_MAP:
        j = json_object();
        for (size_t i = 0; i < n->count; i++)
            json_object_set_new_nocheck(j, n->entries[i].key, rs_node_json(n->entries[i].value));
        return j;
    }
    return json_null();
}

const struct rs_node_entry *rs_node_get(const struct rs_node *map, const char *key)
{
    for (size_t i = 0; map->kind == RS_NODE_MAP && i < map->count; i++) {
        if (strcmp(map->entries[i].key, key) == 0)
            return &map->entries[i];
    }
    return NULL;
}

void rs_node_show(struct rs_buf *out, const struct rs_node *n)
{
    switch (n->kind) {
    case RS_NODE_NULL:
        rs_buf_puts(out, n->text ? "got null" : "got nothing");
        return;
    case RS_NODE_LIST:
        rs_buf_puts(out, "got a list");
        return;
    case RS_NODE_MAP:
        rs_buf_puts(out, "got a mapping");
        return;
    case RS_NODE_TEXT:
        rs_buf_puts(out, "got \"");
        rs_text_fit(out, n->text, RS_NODE_KEY_SHOWN);
        rs_buf_puts(out, "\"");
        return;
    case RS_NODE_BOOL:
    case RS_NODE_INT:
    case RS_NODE_REAL:
        rs_buf_puts(out, "got ");
        rs_text_fit(out, n->text, RS_NODE_KEY_SHOWN);
        return;
    }
}
