// Adds hooks to an app, in the styles that its profile chooses.

import type { FastifyInstance } from 'fastify'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import { EARLY_HOOKS, type HookName, LATE_HOOKS, type Style } from './kinds.ts'
import type { Profile } from './profile.ts'

/** The delay of the styles with "ms" in their name. */
const SOME_MS = 5

const HOOKS: Record<Style, (...args: any[]) => unknown> = {
  callback: (...args) => { args.at(-1)() },
  'callback, later': (...args) => { setImmediate(args.at(-1)) },
  'callback, ms': (...args) => { setTimeout(args.at(-1), SOME_MS) },
  'callback, error': (...args) => { args.at(-1)(new Error('of a hook')) },
  'callback, throws': () => { throw new Error('of a hook') },
  async: async () => {},
  'async, later': async () => { await immediate() },
  'async, ms': async () => { await sleep(SOME_MS) },
  'async, throws': async () => { throw new Error('of a hook') }
}

export function addHooks (app: FastifyInstance, { hooks, errorHandler }: Profile): void {
  for (const name of [...EARLY_HOOKS, ...LATE_HOOKS] as HookName[]) {
    const style = hooks[name]
    if (style === undefined) continue
    const hook = HOOKS[style]
    // Fastify counts the parameters of asynchronous hooks.
    app.addHook(name as 'onSend', (name === 'onRequestAbort' && style.startsWith('async') ? async (request: unknown) => hook(request) : hook) as never)
  }
  // Clients ask by a header to be refused in a hook. The hook uses a callback: after a promise, Fastify would run the handler
  // while an onSend hook is still waiting.
  for (const name of ['onRequest', 'preHandler'] as const) {
    app.addHook(name as 'preHandler', (request, reply, done) => {
      if (request.headers['x-refuse'] === name) reply.code(401).send('no')
      else done()
    })
  }
  if (errorHandler === 'send') app.setErrorHandler((error, request, reply) => { reply.code(418).send(String(error)) })
  if (errorHandler === 'async return') app.setErrorHandler(async (error, request, reply) => { reply.code(418); return String(error) })
  if (errorHandler === 'throws') app.setErrorHandler((error) => { throw error })
  if (errorHandler === 'async, throws') app.setErrorHandler(async () => { throw new Error('of an error handler') })
  if (errorHandler === 'async, ms') {
    app.setErrorHandler(async (error, request, reply) => {
      await sleep(SOME_MS)
      return reply.code(418).send(String(error))
    })
  }
}
