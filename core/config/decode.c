/* Nodes to JSON along a table: types, ranges, unknown and legacy keys. What pydantic takes for a
 * number in Ray ("5", 5.0) is taken here too; what it takes by accident (true for 1) is not.
 */
#include "core/config/fields.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/nearest.h"
#include "core/base/quantity.h"
#include "core/base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct rs_field *rs_field_find(const struct rs_object *o, const char *name)
{
    for (size_t i = 0; i < o->count; i++) {
        if (strcmp(o->fields[i].name, name) == 0)
            return &o->fields[i];
    }
    return NULL;
}

size_t rs_walk_key(struct rs_walk *w, const char *key)
{
    size_t len = rs_buf_len(&w->path);

    if (len)
        rs_buf_puts(&w->path, ".");
    rs_text_fit(&w->path, key, RS_NODE_KEY_SHOWN);
    return len;
}

size_t rs_walk_index(struct rs_walk *w, size_t i)
{
    size_t len = rs_buf_len(&w->path);

    rs_buf_printf(&w->path, "[%zu]", i);
    return len;
}

void rs_walk_back(struct rs_walk *w, size_t len)
{
    w->path.end = w->path.start + len;
    if (w->path.data)
        w->path.data[w->path.end] = '\0';
}

static struct rs_diag_at here(const struct rs_walk *w, int line, int column)
{
    return (struct rs_diag_at){.file = w->file,
                               .path = rs_buf_text(&w->path),
                               .line = line ? line : w->line,
                               .column = line ? column : w->column,
                               .deploy_time = w->deploy > 0};
}

void rs_walk_error(struct rs_walk *w, int line, int column, const char *fmt, ...)
{
    struct rs_diag_at at = here(w, line, column);
    va_list args;

    va_start(args, fmt);
    rs_diags_vadd(w->diags, RS_ERROR, &at, fmt, args);
    va_end(args);
}

void rs_walk_warn(struct rs_walk *w, int line, int column, const char *fmt, ...)
{
    struct rs_diag_at at = here(w, line, column);
    va_list args;

    va_start(args, fmt);
    rs_diags_vadd(w->diags, RS_WARNING, &at, fmt, args);
    va_end(args);
}

static void expects_number(struct rs_buf *out, const struct rs_field *f, const char *what)
{
    rs_buf_puts(out, what);
    if (f->flags & RS_F_ABOVE)
        rs_buf_printf(out, " > %.12g", f->min);
    else if (f->min > -1e9)
        rs_buf_printf(out, " >= %.12g", f->min);
    if (f->max != 0 && f->max < 1e6)
        rs_buf_printf(out, " and <= %.12g", f->max);
}

static void expects_choice(struct rs_buf *out, const struct rs_field *f)
{
    for (size_t i = 0; f->choices[i]; i++)
        rs_buf_printf(out, "%s\"%s\"",
                      i == 0              ? ""
                      : f->choices[i + 1] ? ", "
                                          : " or ",
                      f->choices[i]);
}

static void expects_item(struct rs_buf *out, const struct rs_field *f)
{
    switch (f->item) {
    case RS_TYPE_TEXT:
        rs_buf_puts(out, "a list of texts");
        return;
    case RS_TYPE_AMOUNTS:
        rs_buf_puts(out, "a list of mappings of numbers >= 0");
        return;
    case RS_TYPE_TEXTS:
        rs_buf_puts(out, "a list of mappings of texts");
        return;
    case RS_TYPE_STEP:
        rs_buf_puts(out, "a list of steps");
        return;
    case RS_TYPE_ANY:
        rs_buf_puts(out, "a list");
        return;
    default:
        rs_buf_puts(out, "a list of mappings");
        return;
    }
}

void rs_field_expects(struct rs_buf *out, const struct rs_field *f)
{
    switch (f->type) {
    case RS_TYPE_BOOL:
        rs_buf_puts(out, "true or false");
        break;
    case RS_TYPE_INT:
        expects_number(out, f, "an integer");
        break;
    case RS_TYPE_REAL:
        expects_number(out, f, "a number");
        break;
    case RS_TYPE_SECONDS:
        expects_number(out, f, "a number of seconds");
        break;
    case RS_TYPE_BYTES:
        expects_number(out, f, "a number of bytes");
        rs_buf_puts(out, " or a text such as \"10MiB\"");
        break;
    case RS_TYPE_TEXT:
        rs_buf_puts(out, "a text");
        break;
    case RS_TYPE_CHOICE:
        expects_choice(out, f);
        break;
    case RS_TYPE_REPLICAS:
        rs_buf_puts(out, "an integer >= 1 or \"auto\"");
        break;
    case RS_TYPE_LEVEL:
        rs_buf_puts(out, "the name or number of a log level");
        break;
    case RS_TYPE_COMMAND:
        rs_buf_puts(out, "a text or a list of texts");
        break;
    case RS_TYPE_ANY:
        rs_buf_puts(out, "any value");
        break;
    case RS_TYPE_MAP:
    case RS_TYPE_OBJECT:
        rs_buf_puts(out, "a mapping");
        break;
    case RS_TYPE_TEXTS:
        rs_buf_puts(out, "a mapping of texts");
        break;
    case RS_TYPE_AMOUNTS:
        rs_buf_puts(out, "a mapping of numbers >= 0");
        break;
    case RS_TYPE_STEP:
        rs_buf_puts(out, "a step: a name or a mapping");
        break;
    case RS_TYPE_STEPS:
        rs_buf_puts(out, "a mapping of steps");
        break;
    case RS_TYPE_LIST:
        expects_item(out, f);
        break;
    }
}

static json_t *mismatch(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    rs_buf_puts(&text, "expected ");
    rs_field_expects(&text, f);
    rs_buf_puts(&text, ", ");
    rs_node_show(&text, n);
    if (f->type == RS_TYPE_TEXT &&
        (n->kind == RS_NODE_BOOL || n->kind == RS_NODE_INT || n->kind == RS_NODE_REAL))
        rs_buf_puts(&text, "; put it in quotes");
    rs_walk_error(w, n->line, n->column, "%s", rs_buf_text(&text));
    return NULL;
}

/* A number, also one in quotes unless the field is strict. */
static bool number_of(const struct rs_field *f, const struct rs_node *n, double *value)
{
    char *end;

    if (n->kind == RS_NODE_INT || n->kind == RS_NODE_REAL) {
        *value = n->real;
        return true;
    }
    if (n->kind != RS_NODE_TEXT || f->flags & RS_F_STRICT || !*n->text ||
        strspn(n->text, "0123456789+-.eE") != strlen(n->text))
        return false;
    *value = strtod(n->text, &end);
    return !*end;
}

static bool in_range(const struct rs_field *f, double v)
{
    if (isnan(v) || (f->flags & RS_F_ABOVE ? v <= f->min : v < f->min))
        return false;
    return f->max == 0 || v <= f->max;
}

static json_t *decode_number(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    bool whole = f->type == RS_TYPE_INT || f->type == RS_TYPE_REPLICAS;
    double v;

    if (!number_of(f, n, &v) || !in_range(f, v) || (whole && v != floor(v)))
        return mismatch(w, f, n);
    return whole ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *decode_bytes(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    int64_t v = -1;

    if (n->kind == RS_NODE_INT) {
        v = n->integer;
    } else if (n->kind == RS_NODE_TEXT) {
        rs_auto(rs_freep) char *text = rs_strdup(n->text);
        char *blank = strchr(text, ' ');

        if (blank) /* "10 MiB" */
            memmove(blank, blank + 1, strlen(blank));
        if (!rs_quantity_read(text, rs_units_size, false, &v))
            v = -1;
    }
    return v >= 0 && in_range(f, (double)v) ? json_integer(v) : mismatch(w, f, n);
}

static json_t *decode_bool(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    static const char *const words[] = {"false", "true", "off", "on", "no", "yes", "0", "1"};

    if (n->kind == RS_NODE_BOOL)
        return json_boolean(n->boolean);
    for (size_t i = 0; (n->kind == RS_NODE_TEXT || n->kind == RS_NODE_INT) && i < RS_COUNT(words);
         i++) {
        if (strcasecmp(n->text, words[i]) == 0)
            return json_boolean(i % 2);
    }
    return mismatch(w, f, n);
}

static json_t *decode_choice(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    struct rs_nearest near;

    assert(f->choices);
    if (n->kind != RS_NODE_TEXT)
        return mismatch(w, f, n);
    for (size_t i = 0; f->choices[i]; i++) {
        if (strcmp(n->text, f->choices[i]) == 0)
            return json_string(n->text);
    }
    near = rs_nearest_to(n->text);
    for (size_t i = 0; f->choices[i]; i++)
        rs_nearest_offer(&near, f->choices[i]);
    if (near.best && near.distance == 0) /* Ray's enums differ in case between code and file */
        return json_string(near.best);
    return mismatch(w, f, n);
}

static json_t *decode_value(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n);

/* The items as if each were the value of a field like `f`. */
static json_t *decode_list(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    struct rs_field item = {
        .name = f->name, .type = f->item, .object = f->object, .flags = f->flags & RS_F_SPARSE};
    json_t *list;

    if (n->kind != RS_NODE_LIST)
        return mismatch(w, f, n);
    list = json_array();
    for (size_t i = 0; i < n->count; i++) {
        size_t back = rs_walk_index(w, i);
        json_t *v = decode_value(w, &item, n->items[i]);

        json_array_append_new(list, v ? v : json_null()); /* places stay those of the nodes */
        rs_walk_back(w, back);
    }
    return list;
}

static json_t *decode_map(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n,
                          enum rs_type type)
{
    struct rs_field item = {.name = f->name, .type = type, .object = f->object};
    json_t *map;

    if (n->kind != RS_NODE_MAP)
        return mismatch(w, f, n);
    map = json_object();
    for (size_t i = 0; i < n->count; i++) {
        const struct rs_node_entry *e = &n->entries[i];
        size_t back = rs_walk_key(w, e->key);
        json_t *v = decode_value(w, &item, e->value);

        if (v)
            json_object_set_new_nocheck(map, e->key, v);
        rs_walk_back(w, back);
    }
    return map;
}

static json_t *decode_command(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    struct rs_field list = {.name = f->name, .type = RS_TYPE_LIST, .item = RS_TYPE_TEXT};

    if (n->kind == RS_NODE_TEXT)
        return json_string(n->text);
    if (n->kind != RS_NODE_LIST)
        return mismatch(w, f, n);
    for (size_t i = 0; i < n->count; i++) {
        if (n->items[i]->kind != RS_NODE_TEXT)
            return decode_list(w, &list, n);
    }
    return rs_node_json(n);
}

static json_t *decode_value(struct rs_walk *w, const struct rs_field *f, const struct rs_node *n)
{
    switch (f->type) {
    case RS_TYPE_BOOL:
        return decode_bool(w, f, n);
    case RS_TYPE_INT:
    case RS_TYPE_REAL:
    case RS_TYPE_SECONDS:
        return decode_number(w, f, n);
    case RS_TYPE_BYTES:
        return decode_bytes(w, f, n);
    case RS_TYPE_REPLICAS:
        if (n->kind == RS_NODE_TEXT && strcmp(n->text, "auto") == 0)
            return json_string("auto");
        return n->kind == RS_NODE_TEXT ? mismatch(w, f, n) : decode_number(w, f, n);
    case RS_TYPE_TEXT:
        return n->kind == RS_NODE_TEXT ? json_string(n->text) : mismatch(w, f, n);
    case RS_TYPE_LEVEL:
        if (n->kind == RS_NODE_TEXT || n->kind == RS_NODE_INT)
            return rs_node_json(n);
        return mismatch(w, f, n);
    case RS_TYPE_CHOICE:
        return decode_choice(w, f, n);
    case RS_TYPE_COMMAND:
        return decode_command(w, f, n);
    case RS_TYPE_ANY:
        return rs_node_json(n);
    case RS_TYPE_MAP:
        return n->kind == RS_NODE_MAP ? rs_node_json(n) : mismatch(w, f, n);
    case RS_TYPE_TEXTS:
        return decode_map(w, f, n, RS_TYPE_TEXT);
    case RS_TYPE_AMOUNTS:
        return decode_map(w, f, n, RS_TYPE_REAL);
    case RS_TYPE_STEP:
        if (n->kind == RS_NODE_TEXT)
            return json_string(n->text);
        return n->kind == RS_NODE_MAP ? rs_decode(w, f->object, n) : mismatch(w, f, n);
    case RS_TYPE_STEPS:
        return decode_map(w, f, n, RS_TYPE_STEP);
    case RS_TYPE_OBJECT:
        return n->kind == RS_NODE_MAP ? rs_decode(w, f->object, n) : mismatch(w, f, n);
    case RS_TYPE_LIST:
        return decode_list(w, f, n);
    }
    return NULL;
}

static void unknown_key(struct rs_walk *w, const struct rs_object *o, const struct rs_node_entry *e)
{
    struct rs_nearest near = rs_nearest_to(e->key);
    size_t back = rs_walk_key(w, e->key);
    const char *ask = "", *best = "", *end = "";

    for (size_t i = 0; i < o->count; i++) {
        if (!(o->fields[i].flags & RS_F_FORBIDDEN))
            rs_nearest_offer(&near, o->fields[i].name);
    }
    if (near.best) {
        ask = "; did you mean \"";
        best = near.best;
        end = "\"?";
    }
    if (o->closed)
        rs_walk_error(w, e->line, e->column, "unknown key%s%s%s", ask, best, end);
    else if (!e->value->anchored || near.best) /* else it is there to be referred to */
        rs_walk_warn(w, e->line, e->column, "unknown key, ignored%s%s%s", ask, best, end);
    rs_walk_back(w, back);
}

static bool is_default(const struct rs_field *f, const json_t *v)
{
    rs_auto(rs_json_decrefp) json_t *def = rs_field_default(f);

    return json_equal(v, def) || (json_is_number(v) && json_is_number(def) &&
                                  json_number_value(v) == json_number_value(def));
}

/* The value of one key, checked; NULL if it was refused. */
static json_t *decode_field(struct rs_walk *w, const struct rs_field *f,
                            const struct rs_node_entry *e)
{
    rs_auto(rs_json_decrefp) json_t *v = NULL;
    rs_auto(rs_buf_fini) struct rs_buf why = {0};

    if (f->flags & RS_F_FORBIDDEN) {
        rs_walk_error(w, e->line, e->column, "not allowed here: %s", f->help);
        return NULL;
    }
    if (e->value->kind == RS_NODE_NULL && (f->flags & RS_F_NULL))
        return json_null();
    v = decode_value(w, f, e->value);
    if (v && f->check && !f->check(e->value, &why)) {
        rs_walk_error(w, e->value->line, e->value->column, "%s", rs_buf_text(&why));
        return NULL;
    }
    if (v && f->flags & RS_F_INERT && !is_default(f, v))
        rs_walk_warn(w, e->line, e->column, "understood, but rserve does nothing with it yet");
    return rs_steal(v);
}

static void legacy_name(struct rs_walk *w, const struct rs_field *f, const struct rs_node *map,
                        const struct rs_node_entry *e)
{
    if (rs_node_get(map, f->alias_of))
        rs_walk_warn(w, e->line, e->column, "legacy name, ignored beside \"%s\"", f->alias_of);
    else
        rs_walk_warn(w, e->line, e->column, "legacy name of \"%s\"; write that instead",
                     f->alias_of);
}

/* What is of the wrong type Ray refuses at once, also where it looks at the value only later. */
static bool is_late(const struct rs_field *f, const struct rs_node *n)
{
    double v;

    if (!(f->flags & RS_F_DEPLOY))
        return false;
    switch (f->type) {
    case RS_TYPE_TEXT:
    case RS_TYPE_CHOICE:
        return n->kind == RS_NODE_TEXT;
    case RS_TYPE_INT:
        return number_of(f, n, &v) && v == floor(v);
    case RS_TYPE_LIST:
        return n->kind == RS_NODE_LIST;
    default:
        return n->kind == RS_NODE_MAP;
    }
}

json_t *rs_decode(struct rs_walk *w, const struct rs_object *o, const struct rs_node *map)
{
    json_t *out = json_object();

    for (size_t i = 0; i < map->count; i++) {
        const struct rs_node_entry *e = &map->entries[i];
        const struct rs_field *f = rs_field_find(o, e->key);
        const char *name = f && f->alias_of ? f->alias_of : e->key;
        size_t back;
        json_t *v;

        if (!f) {
            unknown_key(w, o, e);
            continue;
        }
        if (w->code && e->value->kind == RS_NODE_NULL && !(f->flags & RS_F_NULL))
            continue;
        back = rs_walk_key(w, e->key);
        w->deploy += is_late(f, e->value);
        if (f->alias_of)
            legacy_name(w, f, map, e);
        v = decode_field(w, f, e);
        if (v && (!f->alias_of || !rs_node_get(map, f->alias_of)))
            json_object_set_new_nocheck(out, name, v);
        else
            json_decref(v);
        w->deploy -= is_late(f, e->value);
        rs_walk_back(w, back);
    }
    for (size_t i = 0; i < o->count; i++) {
        size_t back;

        if (!(o->fields[i].flags & RS_F_REQUIRED) || rs_node_get(map, o->fields[i].name))
            continue;
        back = rs_walk_key(w, o->fields[i].name);
        rs_walk_error(w, map->line, map->column, "Field required");
        rs_walk_back(w, back);
    }
    return out;
}

json_t *rs_field_default(const struct rs_field *f)
{
    size_t flags = JSON_DECODE_ANY;

    if (f->type == RS_TYPE_REAL || f->type == RS_TYPE_SECONDS)
        flags |= JSON_DECODE_INT_AS_REAL;
    return f->def ? json_loads(f->def, flags, NULL) : json_null();
}

json_t *rs_complete(const struct rs_object *o, const json_t *values)
{
    json_t *out = json_object(), *v;
    const char *key;

    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];
        rs_auto(rs_json_decrefp) json_t *value = NULL;

        if (f->alias_of || f->flags & RS_F_FORBIDDEN)
            continue;
        value = json_incref(json_object_get(values, f->name));
        if (!value || (json_is_null(value) && f->type == RS_TYPE_OBJECT)) {
            json_decref(value);
            value = rs_field_default(f);
        }
        if (f->type == RS_TYPE_OBJECT && json_is_object(value) && !(f->flags & RS_F_SPARSE))
            json_object_set_new(out, f->name, rs_complete(f->object, value));
        else
            json_object_set(out, f->name, value);
    }
    json_object_foreach ((json_t *)(uintptr_t)values, key, v) {
        if (!rs_field_find(o, key))
            json_object_set_nocheck(out, key, v);
    }
    return out;
}

static int64_t nanoseconds(double seconds)
{
    return seconds < 0 ? -1 : (int64_t)llround(seconds * 1e9);
}

static int choice_of(const struct rs_field *f, const json_t *v)
{
    const char *text = json_string_value(v);

    for (int i = 0; text && f->choices[i]; i++) {
        if (strcmp(text, f->choices[i]) == 0)
            return i;
    }
    return 0;
}

static int level_of(const json_t *v)
{
    char text[24];
    int level;

    if (json_is_integer(v))
        snprintf(text, sizeof(text), "%" PRId64, (int64_t)json_integer_value(v));
    level = rs_log_level_number(json_is_integer(v) ? text : json_string_value(v));
    return level < 0 ? 20 : level;
}

void rs_fill(const struct rs_object *o, const json_t *values, void *out)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];
        const json_t *v = json_object_get(values, f->name);
        char *to = (char *)out + f->at - 1;
        bool none = !v || json_is_null(v);

        if (f->at == 0)
            continue;
        switch (f->type) {
        case RS_TYPE_BOOL:
            *(bool *)(void *)to = json_is_true(v);
            break;
        case RS_TYPE_INT:
        case RS_TYPE_REPLICAS:
            *(int *)(void *)to = json_is_integer(v) ? (int)json_integer_value(v) : -1;
            break;
        case RS_TYPE_REAL:
            *(double *)(void *)to = none ? -1 : json_number_value(v);
            break;
        case RS_TYPE_SECONDS:
            *(int64_t *)(void *)to = none ? -1 : nanoseconds(json_number_value(v));
            break;
        case RS_TYPE_BYTES:
            *(int64_t *)(void *)to = json_is_integer(v) ? json_integer_value(v) : -1;
            break;
        case RS_TYPE_TEXT:
            *(const char **)(void *)to = json_string_value(v);
            break;
        case RS_TYPE_CHOICE:
            *(int *)(void *)to = choice_of(f, v);
            break;
        case RS_TYPE_LEVEL:
            *(int *)(void *)to = level_of(v);
            break;
        case RS_TYPE_OBJECT:
            if (f->flags & RS_F_SPARSE || !f->object->fields[0].at)
                *(const json_t **)(void *)to = none ? NULL : v;
            else if (!none)
                rs_fill(f->object, v, to);
            break;
        default:
            *(const json_t **)(void *)to = none ? NULL : v;
            break;
        }
    }
}
