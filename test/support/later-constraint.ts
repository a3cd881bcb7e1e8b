// A constraint that takes a turn of the event loop.

import type { FastifyInstance } from 'fastify'

/** Gives an app the constraint `later`: its routes are found in a later turn, too late for the hand-off. */
export function addLaterConstraint (app: FastifyInstance): void {
  app.addConstraintStrategy({
    name: 'later',
    storage: () => { const map = new Map(); return { get: (key) => map.get(key) ?? null, set: (key, value) => map.set(key, value) } },
    deriveConstraint: ((request: unknown, context: unknown, done: (error: null, value: string) => void) => { setImmediate(done, null, 'yes') }) as any,
    validate: () => true
  })
}
