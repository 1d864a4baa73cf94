/* A reason (controller-why.h) in words: what a tired engineer reads at 3 am. Pure: the text follows from
 * the reason's own figures, and nothing else.
 */
#pragma once

#include <jansson.h>

/* Sets "text", a list of lines (the first says it all, the others are the evidence), and "next": what to
 * do, or what happens by itself. */
void rs_why_text(json_t *reason);
