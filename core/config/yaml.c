/* Text to nodes. libyaml's events are composed here rather than by its document API, since only the
 * events tell `!!str 1` from `1`, and since limits are then checked before memory is spent.
 *
 * JSON is read by the same scanner with JSON's own scalars, so that its values have places too; what
 * only a JSON parser takes (\ud83d\ude00, tabs) falls back to one, without places.
 */
#include "core/config/node.h"

#include "core/base/alloc.h"
#include "core/base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct composer {
    yaml_parser_t parser;
    struct rs_arena *arena;
    struct rs_map anchors; /* name -> struct rs_node */
    const char *file;
    const char *language; /* for messages */
    struct rs_diags *diags;
    bool json;
};

static void RS_PRINTF(3, 4) refuse(struct composer *c, yaml_mark_t mark, const char *fmt, ...)
{
    struct rs_diag_at at = {
        .file = c->file, .line = (int)mark.line + 1, .column = (int)mark.column + 1};
    va_list args;

    va_start(args, fmt);
    rs_diags_vadd(c->diags, RS_ERROR, &at, fmt, args);
    va_end(args);
}

static int next(struct composer *c, yaml_event_t *event)
{
    const yaml_parser_t *p = &c->parser;

    if (yaml_parser_parse(&c->parser, event))
        return 0;
    if (p->error == YAML_READER_ERROR)
        refuse(c, p->mark, "not valid text: %s (byte %zu)", p->problem, p->problem_offset);
    else
        refuse(c, p->problem_mark, "not valid %s: %s%s%s", c->language,
               p->problem ? p->problem : "cannot be parsed", p->context ? ", " : "",
               p->context ? p->context : "");
    return -1;
}

static struct rs_node *new_node(struct composer *c, enum rs_node_kind kind, yaml_mark_t mark)
{
    struct rs_node *n = rs_arena_alloc(c->arena, sizeof(*n));

    n->kind = kind;
    n->line = (int)mark.line + 1;
    n->column = (int)mark.column + 1;
    n->size = 1;
    return n;
}

/* Counts `child` into `n`, which stands `depth` levels below the root. */
static int adopt(struct composer *c, struct rs_node *n, const struct rs_node *child, int depth,
                 yaml_mark_t mark)
{
    n->size += child->size;
    if (n->size > RS_NODE_SIZE) {
        refuse(c, mark, "the document holds more than %d values", RS_NODE_SIZE);
        return -1;
    }
    if (child->height + 1 > n->height)
        n->height = child->height + 1;
    if (depth + n->height > RS_NODE_DEPTH) {
        refuse(c, mark, "values are nested deeper than %d levels", RS_NODE_DEPTH);
        return -1;
    }
    return 0;
}

static void remember(struct composer *c, const yaml_char_t *anchor, struct rs_node *n)
{
    if (!anchor)
        return;
    n->anchored = true;
    rs_map_put(&c->anchors, (const char *)anchor, n);
}

/* An explicit tag of the core schema overrides what the text looks like. */
static int apply_tag(struct composer *c, struct rs_node *n, const char *tag, yaml_mark_t mark)
{
    static const struct {
        const char *tag;
        unsigned kinds; /* bits of rs_node_kind that the text must resolve to; 0: becomes text */
    } tags[] = {
        {"!", 0},
        {YAML_STR_TAG, 0},
        {YAML_NULL_TAG, 1u << RS_NODE_NULL},
        {YAML_BOOL_TAG, 1u << RS_NODE_BOOL},
        {YAML_INT_TAG, 1u << RS_NODE_INT},
        {YAML_FLOAT_TAG, 1u << RS_NODE_INT | 1u << RS_NODE_REAL},
    };

    for (size_t i = 0; i < RS_COUNT(tags); i++) {
        if (strcmp(tag, tags[i].tag) != 0)
            continue;
        if (tags[i].kinds == 0) {
            n->kind = RS_NODE_TEXT;
            return 0;
        }
        rs_node_resolve(n, n->text, false);
        if (tags[i].kinds & (1u << n->kind)) {
            if (strcmp(tag, YAML_FLOAT_TAG) == 0)
                n->kind = RS_NODE_REAL;
            return 0;
        }
        break;
    }
    refuse(c, mark, "the tag %.80s does not fit here; remove it", tag);
    return -1;
}

static struct rs_node *scalar(struct composer *c, const yaml_event_t *e)
{
    struct rs_node *n = new_node(c, RS_NODE_TEXT, e->start_mark);
    const char *value = (const char *)e->data.scalar.value;

    if (memchr(value, '\0', e->data.scalar.length)) {
        refuse(c, e->start_mark, "a text may not hold the character NUL");
        return NULL;
    }
    n->text = rs_arena_strndup(c->arena, value, e->data.scalar.length);
    if (e->data.scalar.plain_implicit)
        rs_node_resolve(n, n->text, c->json);
    else if (e->data.scalar.tag &&
             apply_tag(c, n, (const char *)e->data.scalar.tag, e->start_mark) < 0)
        return NULL;
    remember(c, e->data.scalar.anchor, n);
    return n;
}

static struct rs_node *compose(struct composer *c, const yaml_event_t *e, int depth);

static struct rs_node *sequence(struct composer *c, const yaml_event_t *start, int depth)
{
    struct rs_node *n = new_node(c, RS_NODE_LIST, start->start_mark);
    struct rs_node **items = NULL;
    size_t cap = 0;
    bool ok = false;

    for (;;) {
        struct rs_node *item;
        yaml_event_t e;

        if (next(c, &e) < 0)
            break;
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            ok = true;
            break;
        }
        item = compose(c, &e, depth + 1);
        if (!item || adopt(c, n, item, depth, e.start_mark) < 0) {
            yaml_event_delete(&e);
            break;
        }
        yaml_event_delete(&e);
        items = rs_grow(items, &cap, n->count + 1, sizeof(struct rs_node *));
        items[n->count++] = item;
    }
    n->items = rs_arena_alloc(c->arena, n->count * sizeof(*n->items));
    if (items)
        memcpy(n->items, items, n->count * sizeof(*n->items));
    free(items);
    if (ok)
        remember(c, start->data.sequence_start.anchor, n);
    return ok ? n : NULL;
}

/* A mapping while it is read. Keys that come through << yield to those written out, and to those of
 * an earlier <<. */
struct building {
    struct rs_node *node;
    struct rs_node_entry *entries;
    size_t cap;
    struct rs_map index; /* key -> place in entries + 1 */
    int depth;
};

static size_t place_of(const struct building *b, const char *key)
{
    return (size_t)(uintptr_t)rs_map_get(&b->index, key);
}

static void append(struct building *b, struct rs_node_entry entry)
{
    struct rs_node *n = b->node;

    b->entries = rs_grow(b->entries, &b->cap, n->count + 1, sizeof(*b->entries));
    b->entries[n->count++] = entry;
    rs_map_put(&b->index, entry.key, (void *)(uintptr_t)n->count);
}

static int merge(struct composer *c, struct building *b, const struct rs_node *from,
                 yaml_mark_t mark)
{
    if (from->kind == RS_NODE_LIST) {
        for (size_t i = 0; i < from->count; i++) {
            if (from->items[i]->kind != RS_NODE_MAP)
                break;
            if (merge(c, b, from->items[i], mark) < 0)
                return -1;
            if (i + 1 == from->count)
                return 0;
        }
        if (from->count == 0)
            return 0;
    }
    if (from->kind != RS_NODE_MAP) {
        refuse(c, mark, "<<: expected a mapping or a list of mappings to merge");
        return -1;
    }
    for (size_t i = 0; i < from->count; i++) {
        struct rs_node_entry entry = from->entries[i];

        if (place_of(b, entry.key))
            continue;
        entry.merged = true;
        if (adopt(c, b->node, entry.value, b->depth, mark) < 0)
            return -1;
        append(b, entry);
    }
    return 0;
}

static int insert(struct composer *c, struct building *b, const struct rs_node *key,
                  struct rs_node *value, yaml_mark_t mark)
{
    size_t at = place_of(b, key->text);
    struct rs_node_entry entry = {
        .key = key->text, .line = key->line, .column = key->column, .value = value};

    if (adopt(c, b->node, value, b->depth, mark) < 0)
        return -1;
    if (at && !b->entries[at - 1].merged) {
        refuse(c, mark, "the key \"%.*s\" stands here twice, first in line %d", RS_NODE_KEY_SHOWN,
               key->text, b->entries[at - 1].line);
        return -1;
    }
    if (at)
        b->entries[at - 1] = entry;
    else
        append(b, entry);
    return 0;
}

/* Keys are texts; numbers and words are taken as they are written. */
static struct rs_node *map_key(struct composer *c, const yaml_event_t *e)
{
    struct rs_node *key;

    if (e->type == YAML_ALIAS_EVENT) {
        refuse(c, e->start_mark, "a key may not be an alias");
        return NULL;
    }
    if (e->type != YAML_SCALAR_EVENT) {
        refuse(c, e->start_mark, "a key must be a text, not a %s%s",
               e->type == YAML_MAPPING_START_EVENT ? "mapping" : "list",
               e->type == YAML_MAPPING_START_EVENT
                   ? "; put {...} into quotes if it is meant as text"
                   : "");
        return NULL;
    }
    key = scalar(c, e);
    if (key && c->json && e->data.scalar.plain_implicit) {
        refuse(c, e->start_mark, "not valid JSON: a key must be in quotes");
        return NULL;
    }
    return key;
}

static int map_pair(struct composer *c, struct building *b, yaml_event_t *key_event)
{
    struct rs_node *key = map_key(c, key_event), *value;
    bool is_merge = key && key_event->data.scalar.plain_implicit && strcmp(key->text, "<<") == 0;
    yaml_event_t e;
    int r = -1;

    if (!key || next(c, &e) < 0)
        return -1;
    value = compose(c, &e, b->depth + 1);
    if (value)
        r = is_merge ? merge(c, b, value, key_event->start_mark)
                     : insert(c, b, key, value, key_event->start_mark);
    yaml_event_delete(&e);
    return r;
}

static struct rs_node *mapping(struct composer *c, const yaml_event_t *start, int depth)
{
    struct building b = {.node = new_node(c, RS_NODE_MAP, start->start_mark), .depth = depth};
    bool ok = false, done = false;

    while (!done) {
        yaml_event_t e;

        if (next(c, &e) < 0)
            break;
        if (e.type == YAML_MAPPING_END_EVENT)
            ok = done = true;
        else if (map_pair(c, &b, &e) < 0)
            done = true;
        yaml_event_delete(&e);
    }
    b.node->entries = rs_arena_alloc(c->arena, b.node->count * sizeof(*b.entries));
    if (b.entries)
        memcpy(b.node->entries, b.entries, b.node->count * sizeof(*b.entries));
    free(b.entries);
    rs_map_fini(&b.index);
    if (ok)
        remember(c, start->data.mapping_start.anchor, b.node);
    return ok ? b.node : NULL;
}

static struct rs_node *compose(struct composer *c, const yaml_event_t *e, int depth)
{
    struct rs_node *n;

    if (depth > RS_NODE_DEPTH) {
        refuse(c, e->start_mark, "values are nested deeper than %d levels", RS_NODE_DEPTH);
        return NULL;
    }
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return scalar(c, e);
    case YAML_SEQUENCE_START_EVENT:
        return sequence(c, e, depth);
    case YAML_MAPPING_START_EVENT:
        return mapping(c, e, depth);
    case YAML_ALIAS_EVENT:
        n = rs_map_get(&c->anchors, (const char *)e->data.alias.anchor);
        if (!n)
            refuse(c, e->start_mark, "the alias *%.60s has no anchor before it",
                   (const char *)e->data.alias.anchor);
        return n;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        break;
    }
    refuse(c, e->start_mark, "not valid YAML: a value is missing");
    return NULL;
}

/* The root of the first document, and a refusal of a second one. An empty text is a null. */
static struct rs_node *document(struct composer *c)
{
    struct rs_node *root = NULL;
    bool ok = true;

    while (ok) {
        yaml_event_t e;
        yaml_event_type_t type;

        if (next(c, &e) < 0)
            return NULL;
        type = e.type;
        if (type == YAML_STREAM_END_EVENT && !root)
            root = new_node(c, RS_NODE_NULL, e.start_mark);
        else if (type == YAML_DOCUMENT_START_EVENT && root) {
            refuse(c, e.start_mark, "expected one document; a second one begins here");
            ok = false;
        } else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                   type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT) {
            root = compose(c, &e, 0);
            ok = root != NULL;
        }
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT)
            return root;
    }
    return NULL;
}

/* JSON begins with a bracket; so may YAML, which is then tried when JSON's parser says no. */
static bool may_be_json(const char *text, size_t len)
{
    size_t i = 0;

    while (i < len && strchr(" \t\r\n", text[i]))
        i++;
    return i < len && (text[i] == '{' || text[i] == '[');
}

static struct rs_node *parse_as(struct rs_arena *arena, const char *text, size_t len, bool json,
                                const char *file, struct rs_diags *diags)
{
    struct rs_node *root = NULL;
    struct composer c = {.arena = arena, .file = file, .diags = diags, .json = json};

    c.language = may_be_json(text, len) ? "JSON or YAML" : "YAML";
    if (!yaml_parser_initialize(&c.parser)) {
        refuse(&c, (yaml_mark_t){0}, "out of memory");
        return NULL;
    }
    yaml_parser_set_input_string(&c.parser, (const unsigned char *)text, len);
    root = document(&c);
    yaml_parser_delete(&c.parser);
    rs_map_fini(&c.anchors);
    return root;
}

static json_t *try_json(const char *text, size_t len)
{
    if (!may_be_json(text, len))
        return NULL;
    return json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
}

/* The scanner folds what it takes for a line break inside a text (U+2028); a JSON parser does not. */
static bool same(const struct rs_node *n, json_t *json)
{
    rs_auto(rs_json_decrefp) json_t *read = rs_node_json(n);

    return json_equal(read, json);
}

struct rs_node *rs_node_parse(struct rs_arena *arena, const char *text, size_t len,
                              const char *file, struct rs_diags *diags)
{
    rs_auto(rs_json_decrefp) json_t *json = try_json(text, len);
    struct rs_diags without = {0};
    struct rs_diag_at at = {.file = file};
    struct rs_error err = {0};
    struct rs_node *n;

    if (!json)
        return parse_as(arena, text, len, false, file, diags);
    n = parse_as(arena, text, len, true, file, &without);
    rs_diags_fini(&without);
    if (n && !same(n, json))
        n = NULL;
    if (!n)
        n = rs_node_from_json(arena, json, &err);
    if (!n)
        rs_diags_add(diags, RS_ERROR, &at, "%s", err.msg);
    return n;
}
