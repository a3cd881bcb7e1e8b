// Where a server is: the parts of a URL that choose a connection, and the socket to there.

import net from 'node:net'
import tls from 'node:tls'
import type { AgentOptions } from '../../types/client.d.ts'
import { OptionError } from '../errors.ts'

export interface Origin {
  /** For the pool: calls with the same key may share a connection. */
  readonly key: string
  /** The value of the Host field. */
  readonly host: string
  readonly isSecure: boolean
  readonly address: { host: string, port: number } | { path: string }
}

/** An origin, and the request-target of a call. */
export interface Target {
  readonly origin: Origin
  readonly path: string
}

// A fragment is not sent.
const UNIX = /^unix:(?:\/\/)?(\/[^:#]*)(?::(\/[^#]*))?(?:#.*)?$/

/**
 * Parses the URL of a call: `http:`, `https:`, or `unix:/path/of/socket:/path`.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION
 */
export function parseTarget (url: string | URL): Target {
  const [, socketPath, path = '/'] = UNIX.exec(String(url)) ?? []
  if (socketPath !== undefined) return { origin: { key: `unix:${socketPath}`, host: 'localhost', isSecure: false, address: { path: socketPath } }, path }
  const { protocol, hostname, port, host, pathname, search, username, password } = parse(String(url))
  if (protocol !== 'http:' && protocol !== 'https:') throw new OptionError('url', `expected http:, https: or unix:, not ${protocol}`)
  if (username !== '' || password !== '') throw new OptionError('url', 'put credentials into the field "authorization"')
  const isSecure = protocol === 'https:'
  const address = { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? (isSecure ? 443 : 80) : Number(port) }
  return { origin: { key: `${protocol}//${host}`, host, isSecure, address }, path: pathname + search }
}

function parse (url: string): URL {
  try {
    return new URL(url)
  } catch (error) {
    throw new OptionError('url', (error as Error).message)
  }
}

/** Begins to connect. The socket emits 'connect' or, with TLS, 'secureConnect'. */
export function connect ({ address, isSecure }: Origin, { tls: options }: AgentOptions): net.Socket {
  // `allowHalfOpen`: a server may end its side while a request is still being sent.
  const socketOptions = { ...address, allowHalfOpen: true, noDelay: true }
  if (!isSecure) return net.connect(socketOptions as net.NetConnectOpts)
  const { host } = address as { host: string }
  const servername = net.isIP(host) === 0 ? host : ''
  return tls.connect({ servername, ...options, ...socketOptions, ALPNProtocols: ['http/1.1'] } as tls.ConnectionOptions)
}
