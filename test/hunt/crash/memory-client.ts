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
export async function runMemory (testCase: Case, app: FastifyInstance, { authorities, findOpen }: Environment): Promise<string[]> {
  const client = await app.injectDuplex(optionsOf(testCase, authorities))
  const { socket } = client
  client.resume()
  try {
    const isWhole = testCase.act === 'complete' || testCase.act === 'half-close'
    if (!client.writableEnded && testCase.request !== 'none' && testCase.request !== 'HEAD') {
      const size = isWhole ? testCase.size : Math.floor(testCase.size * testCase.at)
      for (let part = 0; part < testCase.parts && client.writable; part++) {
        client.write(Buffer.alloc(Math.ceil(size / testCase.parts), 'x'))
        await immediate()
      }
      if (isWhole && client.writable) client.end()
    }
    await pause(testCase.delay)
    if (testCase.act === 'destroy') client.destroy(testCase.at < 0.5 ? new Error('of the client') : undefined)
    if (testCase.act === 'reset') (socket as Duplex & { resetAndDestroy (): void }).resetAndDestroy()
    if (testCase.act === 'half-close') socket.end()
    if (testCase.act === 'garbage' && socket.writable) socket.write('\0\xff\x01'.repeat(10))
    const problems: string[] = []
    if (testCase.act === 'complete') {
      await settlesWithin(WAIT_LIMIT, client.response)
      if (!socket.destroyed && testCase.mustKeep && !await isAnswered(client.next({ url: '/pong', headers: { 'x-id': `${testCase.number}.next` } }))) problems.push('the next request on the connection is not answered')
    }
    if (testCase.mustEnd) problems.push(...(await findOpen(testCase.number)).map((what) => `before the client leaves, ${what}`))
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

function optionsOf (testCase: Case, authorities: Record<string, string>): InjectDuplexOptions {
  const headers: Record<string, string> = { 'x-id': `${testCase.number}.0` }
  if (testCase.refusedIn !== '') headers['x-refuse'] = testCase.refusedIn
  const url = pathOf(testCase.pace, testCase.handler)
  if (testCase.request === 'connect') return { method: 'CONNECT', url: authorities[testCase.target], headers: { ...headers, 'x-handler': testCase.handler } }
  if (testCase.request === 'none') return { method: 'GET', url, headers }
  if (testCase.request === 'HEAD') return { method: 'HEAD', url, headers }
  if (testCase.request === 'upgrade') headers.upgrade = 'tcp'
  if (testCase.request === 'expect') headers.expect = '100-continue'
  if (testCase.request === 'length') return { method: 'POST', url, headers, payload: Buffer.alloc(testCase.size, 'x') }
  return { method: 'POST', url, headers }
}
