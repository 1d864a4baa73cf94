/* Circular doubly linked list, embedded in its elements. A node not in a list points to itself, so
 * removing twice is harmless and "is it queued?" needs no flag. The list never owns its elements.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct rs_list {
    struct rs_list *next, *prev;
};

#define rs_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Safe against removal of `it` (only) from inside the loop. */
#define rs_list_for_each(it, head)                                                                 \
    for (struct rs_list *it = (head)->next, *it##_next = it->next; it != (head);                   \
         it = it##_next, it##_next = it->next)

static inline void rs_list_init(struct rs_list *n)
{
    n->next = n->prev = n;
}

static inline bool rs_list_empty(const struct rs_list *head)
{
    return head->next == head;
}

static inline void rs_list_remove(struct rs_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    rs_list_init(n);
}

/* Takes `n` out of the list that it is in, if any, and puts it last. */
static inline void rs_list_push_back(struct rs_list *head, struct rs_list *n)
{
    rs_list_remove(n);
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}

static inline void rs_list_push_front(struct rs_list *head, struct rs_list *n)
{
    rs_list_remove(n);
    n->next = head->next;
    n->prev = head;
    head->next->prev = n;
    head->next = n;
}

/* The first node, removed, or NULL. */
static inline struct rs_list *rs_list_pop_front(struct rs_list *head)
{
    struct rs_list *n = head->next;

    if (n == head)
        return NULL;
    rs_list_remove(n);
    return n;
}

/* Moves all of `from` to the end of `to`. */
static inline void rs_list_splice(struct rs_list *to, struct rs_list *from)
{
    if (rs_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    rs_list_init(from);
}
