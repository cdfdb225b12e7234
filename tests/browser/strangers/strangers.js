// Foreign clients as they come from the registry, for a page that has no modules of its own.
import { WebRTCPlayer } from '@eyevinn/webrtc-player';
import { WHIPClient } from '@eyevinn/whip-web-client';

globalThis.strangers = { WebRTCPlayer, WHIPClient };
