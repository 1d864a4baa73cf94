/* A document as a tree of values that know where they were written. Internal to core/config.
 *
 * Aliases share their node; merge keys are already merged. Texts hold no NUL, keys are unique, and
 * depth and expanded size are bounded, so whoever walks a tree needs no limits of its own.
 *
 * Ownership: all nodes and texts live in the arena of their document.
 */
#pragma once

#include "core/base/arena.h"
#include "core/base/json.h"
#include "core/config/diag.h"

#define RS_NODE_DEPTH 64     /* levels */
#define RS_NODE_SIZE 200000  /* values after expansion of aliases */
#define RS_NODE_KEY_SHOWN 60 /* longer keys are cut in messages */

enum rs_node_kind {
    RS_NODE_NULL,
    RS_NODE_BOOL,
    RS_NODE_INT,
    RS_NODE_REAL,
    RS_NODE_TEXT,
    RS_NODE_LIST,
    RS_NODE_MAP,
};

struct rs_node_entry;

struct rs_node {
    enum rs_node_kind kind;
    int line, column; /* from 1; 0: not known */
    size_t size;      /* values in it, itself included, aliases expanded */
    int height;       /* levels below */
    bool boolean;
    bool anchored; /* aliases may refer to it */
    int64_t integer;
    double real;
    const char *text;              /* TEXT: its value; other scalars: as written */
    size_t count;                  /* of items or entries */
    struct rs_node **items;        /* LIST */
    struct rs_node_entry *entries; /* MAP, in the order of the document */
};

struct rs_node_entry {
    const char *key;
    int line, column;
    bool merged; /* came through << */
    struct rs_node *value;
};

/* What a plain scalar stands for, as PyYAML's safe loader resolves it (YAML 1.1); a JSON document has
 * JSON's numbers and words only. Fills kind and value; `text` is kept by the node. */
void rs_node_resolve(struct rs_node *n, const char *text, bool json);

/* Refusals go to `diags`; NULL then. */
struct rs_node *rs_node_parse(struct rs_arena *arena, const char *text, size_t len,
                              const char *file, struct rs_diags *diags);
/* A tree without places. NULL if a text holds a NUL or a limit is broken (`err` says which). */
struct rs_node *rs_node_from_json(struct rs_arena *arena, const json_t *json, struct rs_error *err);
json_t *rs_node_json(const struct rs_node *n); /* a new reference */

const struct rs_node_entry *rs_node_get(const struct rs_node *map, const char *key);
/* "got \"two\"", "got a list": how messages show a value. Appends at most about 60 columns. */
void rs_node_show(struct rs_buf *out, const struct rs_node *n);
