// Clients for routes with items, over every transport, and without a port.

import { once } from 'node:events'
import http2 from 'node:http2'
import type { Readable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { KINDS } from '../support/kinds.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { type Served, type Wire, chunk, serve } from '../support/wire.ts'

type Fields = Record<string, unknown>

export interface Result {
  status: number
  fields: Fields
  body: string
  /** The response has no proper end. */
  isCutOff: boolean
}

/** Sends one request, in these chunks, and reads its response. The next request goes over the same connection, if it was kept. */
export type Send = (path: string, chunks: readonly Buffer[], fields?: Record<string, string>, method?: string) => Promise<Result>

export const WAYS = [...Object.keys(KINDS), 'injectDuplex', 'inject'] as const

/** A server for one way to send requests. */
export async function serveWay (t: Test, way: string, setup: (app: FastifyInstance, routeOptions: object) => unknown, plugin: object = {}, fastify: object = {}): Promise<Served & { send: Send }> {
  const { options, routeOptions } = KINDS[way] ?? KINDS.raw
  const served = await serve(t, 'tcp', (app) => {
    if ('constraints' in routeOptions) addLaterConstraint(app)
    return setup(app, routeOptions)
  }, { fastify: { ...options, ...fastify }, plugin })
  const isSecure = 'https' in options
  if (way === 'inject') return { ...served, send: overInject(served.app) }
  if (way === 'injectDuplex') return { ...served, send: overInjectDuplex(served.app) }
  if (KINDS[way].http2 === true) return { ...served, send: overHttp2(t, `${isSecure ? 'https' : 'http'}://127.0.0.1:${served.port}`) }
  return { ...served, send: overHttp1(served) }
}

/** The rest of a response over HTTP/1.1. */
export async function restOf (wire: Wire): Promise<Pick<Result, 'body' | 'isCutOff'>> {
  try {
    return { body: utf8(await wire.body()), isCutOff: false }
  } catch {
    return { body: utf8(await wire.content(0)), isCutOff: true }
  }
}

/** A wire reads bytes as characters. */
export const utf8 = (bytes: string): string => Buffer.from(bytes, 'latin1').toString()

function overHttp1 ({ connect }: Served): Send {
  let wire: Wire | null = null
  return async (path, chunks, fields = {}, method = 'POST') => {
    wire ??= await connect()
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join('')
    const body = chunks.map((bytes) => chunk(bytes.toString('latin1'))).join('')
    wire.send(`${method} ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${lines}\r\n${body}0\r\n\r\n`)
    const head = await wire.head(method)
    const rest = await restOf(wire)
    if (rest.isCutOff || head.fields.connection === 'close') {
      await wire.ended
      wire = null
    }
    return { status: head.statusCode, fields: { ...head.fields }, ...rest }
  }
}

function overHttp2 (t: Test, url: string): Send {
  const session = http2.connect(url, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return async (path, chunks, fields = {}, method = 'POST') => {
    const stream = session.request({ ':path': path, ':method': method, ...fields })
    const response = once(stream, 'response')
    for (const bytes of chunks) stream.write(bytes)
    stream.end()
    const [{ ':status': status, ...rest }] = await response
    return { status, fields: rest, ...await collect(stream) }
  }
}

function overInjectDuplex (app: FastifyInstance): Send {
  return async (path, chunks, fields = {}, method = 'POST') => {
    const client = await app.injectDuplex({ method, url: path, headers: fields })
    for (const bytes of chunks) client.write(bytes)
    client.end()
    const { statusCode, headers } = await client.response
    return { status: statusCode, fields: headers, ...await collect(client) }
  }
}

function overInject (app: FastifyInstance): Send {
  return async (path, chunks, fields = {}, method = 'POST') => {
    const { statusCode, headers, stream } = await app.inject({ method: method as 'POST', url: path, headers: fields, payload: Buffer.concat(chunks), payloadAsStream: true })
    return { status: statusCode, fields: headers, ...await collect(stream()) }
  }
}

/** Not with `for await`: that drops what is buffered when the stream fails. */
async function collect (stream: Readable): Promise<Pick<Result, 'body' | 'isCutOff'>> {
  const received: Buffer[] = []
  stream.on('data', (bytes: Buffer) => { received.push(bytes) }).on('error', () => {})
  if (!stream.closed) await new Promise((resolve) => { stream.once('close', resolve) })
  return { body: Buffer.concat(received).toString(), isCutOff: !stream.readableEnded }
}

/** Waits for something that has no event. */
export async function until (isSo: () => boolean): Promise<void> {
  while (!isSo()) await immediate()
}

export const JSONL = { 'content-type': 'application/jsonl' }

/** The items of a body of JSON Lines. */
export function linesOf (body: string): any[] {
  return body.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line))
}
