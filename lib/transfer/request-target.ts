// The request-target (RFC 9112 section 3.2), in its four forms.

import type { TargetForm } from '../../types/transfer.d.ts'
import { isHost } from './host.ts'
import { readAuthority } from './tunnel.ts'

// Visible bytes of ASCII, but no fragment: a "#" is where some recipients would end the path, and others would not.
const TARGET = /^[!"$-~]+$/
// absolute-URI (RFC 3986 section 4.3) with an authority. Without one, nobody could say which host the request is for.
const ABSOLUTE = /^[a-z][a-z0-9+.-]*:\/\/([^/?]+)(?:[/?].*)?$/i

export interface Target {
  form: TargetForm
  /** The host and port in the target; null if the Host field has it. */
  host: string | null
}

/** @returns null if the target is malformed, or in a form that this method does not have */
export function parseTarget (method: string, target: string): Target | null {
  if (!TARGET.test(target)) return null
  if (method === 'CONNECT') return readAuthority(target) !== null ? { form: 'authority', host: target } : null
  if (target.startsWith('/')) return { form: 'origin', host: null }
  if (target === '*') return method === 'OPTIONS' ? { form: 'asterisk', host: null } : null
  const host = ABSOLUTE.exec(target)?.[1]
  // Userinfo is no part of a host: it would be an error (RFC 9110 section 4.2.4), also for another scheme.
  return host !== undefined && isHost(host) ? { form: 'absolute', host } : null
}
