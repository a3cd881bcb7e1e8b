// Servers for requests written by hand, whoever reads them: we, from the raw connection, or Node, from which we get its request
// and response.

import type { Test } from 'tap'
import { addLaterConstraint } from './later-constraint.ts'
import { type ServeOptions, type Served, TLS, serve } from './wire.ts'

type Setup = Parameters<typeof serve>[2]

interface Options extends ServeOptions {
  /** Options of the server. */
  http?: object
}

/** Starts an app with the plugin. */
export type Start = (t: Test, setup: Setup, options?: Options) => Promise<Served>

/** @param t loads the plugin once more, for a Node whose connections cannot be borrowed */
export function startersOf (t: Test): Record<string, Start> {
  const fallback = t.mockRequire('./wire.ts', {
    '../../lib/handoff/probe.ts': { ...require('../../lib/handoff/probe.ts'), missingFromNode: () => 'anything' }
  }) as { serve: typeof serve }
  return {
    tcp: (t, setup, { http, fastify, ...options } = {}) => serve(t, 'tcp', setup, { ...options, fastify: { http, ...fastify } }),
    tls: (t, setup, { http, fastify, ...options } = {}) => serve(t, 'tls', setup, { ...options, fastify: { https: { ...TLS, ...http }, ...fastify } }),
    fallback: (t, setup, { http, fastify, ...options } = {}) => fallback.serve(t, 'tcp', setup, { ...options, fastify: { http, ...fastify } }),
    'asynchronous constraint': (t, setup, { http, fastify, ...options } = {}) => serve(t, 'tcp', setup, {
      ...options,
      fastify: { http, ...fastify },
      before: (app) => {
        addLaterConstraint(app)
        app.addHook('onRoute', (route) => { route.constraints = { later: 'yes' } })
      }
    })
  }
}
