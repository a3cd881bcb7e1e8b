// Clients in the process of the app: `app.injectDuplex()`, and connections in memory for the HTTP/1 client.

import type { Duplex } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { MemorySocket } from '../../../lib/client/memory-socket.ts'
import type { InjectDuplexOptions } from '../../../types/index.d.ts'
import type { Case } from './case.ts'
import { type Dial, pause } from './connection.ts'
import { pathOf } from './handlers.ts'
import type { Environment } from './http1-client.ts'
import { ANSWER_LIMIT, WAIT_LIMIT, settlesWithin } from './limits.ts'

/** Opens connections as `injectDuplex` does, but without its client. */
export function memoryDialer (app: FastifyInstance): Dial {
  return async (): Promise<Duplex> => {
    const [client, server] = MemorySocket.pair({ address: '127.0.0.1', port: 49152 }, { address: '127.0.0.1', port: 80 })
    Object.assign(server, { server: app.server })
    app.server.emit('connection', server)
    return client
  }
}

/** @returns the problems */
export async function runMemory (one: Case, app: FastifyInstance, { authorities, findOpen }: Environment): Promise<string[]> {
  const client = await app.injectDuplex(optionsOf(one, authorities))
  const { socket } = client
  client.resume()
  try {
    const isWhole = one.act === 'complete' || one.act === 'half-close'
    if (!client.writableEnded && one.request !== 'none' && one.request !== 'HEAD') {
      const size = isWhole ? one.size : Math.floor(one.size * one.at)
      for (let part = 0; part < one.parts && client.writable; part++) {
        client.write(Buffer.alloc(Math.ceil(size / one.parts), 'x'))
        await immediate()
      }
      if (isWhole && client.writable) client.end()
    }
    await pause(one.delay)
    if (one.act === 'destroy') client.destroy(one.at < 0.5 ? new Error('of the client') : undefined)
    if (one.act === 'reset') (socket as Duplex & { resetAndDestroy (): void }).resetAndDestroy()
    if (one.act === 'half-close') socket.end()
    if (one.act === 'garbage' && socket.writable) socket.write('\0\xff\x01'.repeat(10))
    const problems: string[] = []
    if (one.act === 'complete') {
      await settlesWithin(WAIT_LIMIT, client.response)
      if (!socket.destroyed && one.mustKeep && !await isAnswered(client.next({ url: '/pong', headers: { 'x-id': `${one.number}.next` } }))) problems.push('the next request on the connection is not answered')
    }
    if (one.mustEnd) problems.push(...(await findOpen(one.number)).map((what) => `before the client leaves, ${what}`))
    return problems
  } finally {
    client.destroy()
    socket.destroy()
  }
}

async function isAnswered (client: Duplex & { response: Promise<unknown> }): Promise<boolean> {
  client.resume()
  return settlesWithin(ANSWER_LIMIT, client.response)
}

function optionsOf (one: Case, authorities: Record<string, string>): InjectDuplexOptions {
  const headers: Record<string, string> = { 'x-id': `${one.number}.0` }
  if (one.refusedIn !== '') headers['x-refuse'] = one.refusedIn
  const url = pathOf(one.pace, one.handler)
  if (one.request === 'connect') return { method: 'CONNECT', url: authorities[one.target], headers: { ...headers, 'x-handler': one.handler } }
  if (one.request === 'none') return { method: 'GET', url, headers }
  if (one.request === 'HEAD') return { method: 'HEAD', url, headers }
  if (one.request === 'upgrade') headers.upgrade = 'tcp'
  if (one.request === 'expect') headers.expect = '100-continue'
  if (one.request === 'length') return { method: 'POST', url, headers, payload: Buffer.alloc(one.size, 'x') }
  return { method: 'POST', url, headers }
}
