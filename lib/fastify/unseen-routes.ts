// Routes with `duplex` that the plugin has not seen: added before it was loaded, or outside of the instance that has it. They are
// ordinary routes. Fastify keeps no options of its routes, so they are noted while they are added, in every app from its
// creation on. An app that was created before this module was loaded is not known here. See `NotEnabledError` for that.

import type { FastifyInstance, RouteOptions } from 'fastify'
import { UnseenRouteError } from '../errors.ts'
import { onNewApp, rootOf } from './internals.ts'

/** On a route that the plugin has seen. Another copy of this package in the same app must know it too. */
const kSeen = Symbol.for('fastify-duplex.seen')

type Route = RouteOptions & { [kSeen]?: true }

/** The routes with `duplex` of each app. */
const noted = new WeakMap<FastifyInstance, Route[]>()

// In every app of the process. It costs one more hook when a route is added, and nothing for a request.
onNewApp((app) => {
  const routes: Route[] = []
  noted.set(app, routes)
  app.addHook('onRoute', (route) => { if (route.duplex) routes.push(route) })
})

export function markSeen (route: Route): void {
  route[kSeen] = true
}

/**
 * Looks at all routes of the whole app.
 *
 * @throws {UnseenRouteError} FST_ERR_DUPLEX_UNSEEN_ROUTE
 */
export function checkAllSeen (app: FastifyInstance): void {
  for (const route of noted.get(rootOf(app)) ?? []) {
    if (route.duplex && !route[kSeen]) throw new UnseenRouteError(String(route.method), route.url)
  }
}
